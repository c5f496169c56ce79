"""Who is asked in a round: those who have waited too long, then whom the strategy chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from laconic.coordinator.selection import plugin
from laconic.coordinator.selection.candidate import Candidate, Context, Strategy
from laconic.coordinator.selection.fairness import overdue
from laconic.coordinator.selection.oort import oort
from laconic.coordinator.selection.settings import OORT, STRATIFIED, UNIFORM, SelectionSettings
from laconic.coordinator.selection.stratified import stratified
from laconic.coordinator.selection.uniform import uniform
from laconic.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is asked."""

    names: list[str]
    overdue: int = 0
    """How many of them, the first, because they have waited too long."""
    failure: ConfigError | None = None
    """Why the plug-in did not choose: then the rest were chosen with the same chance for all."""


def strategy_of(settings: SelectionSettings) -> Strategy:
    """The strategy that is configured. Raises `ConfigError` for a plug-in that cannot be loaded."""
    match settings.strategy:
        case "uniform":
            return uniform
        case "oort":
            return partial(oort, settings=settings)
        case "stratified":
            return partial(stratified, settings=settings)
        case path:
            return plugin.load(path)


def choose(
    settings: SelectionSettings,
    strategy: Strategy,
    candidates: Sequence[Candidate],
    count: int,
    context: Context,
    least: int = 0,
) -> Choice:
    """At most `count` of `candidates`; exactly so many, if there are, unless a plug-in wants fewer.

    If it wants fewer than `least` in all, the rest are chosen with the same chance for all.
    The same candidates, in whatever order, in the same round give the same choice.
    """
    ordered = sorted(candidates, key=lambda c: c.name)
    count = max(0, min(count, len(ordered)))
    first: list[str] = []
    if settings.most_rounds_waiting:
        first = overdue(ordered, settings.most_rounds_waiting, context.draws(ordered))[:count]
    served = set(first)
    rest, left = tuple(c for c in ordered if c.name not in served), count - len(first)
    if not left:
        return Choice(first, len(first))
    if settings.strategy in (UNIFORM, OORT, STRATIFIED):
        return Choice([*first, *strategy(rest, left, context)], len(first))
    try:
        names = [*first, *plugin.call(strategy, settings.strategy, rest, left, context)]
        if missing := max(0, min(least, count) - len(names)):
            others = [c for c in rest if c.name not in names]
            names += uniform(others, missing, context)
        return Choice(names, len(first))
    except ConfigError as e:
        return Choice([*first, *uniform(rest, left, context)], len(first), e)
