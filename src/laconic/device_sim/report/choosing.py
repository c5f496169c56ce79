"""Which of a sweep's settings to take: which are as good as the best, and what each costs a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from laconic.device_sim.report import curves
from laconic.device_sim.report.curves import Curve
from laconic.device_sim.scenario.results import Result, RoundRow

_POINTS: Final = 0.005
_SHARE: Final = 0.01


class Price(NamedTuple):
    """What it took a device, on average, to come to a goal."""

    rounds: float
    hours: float
    bytes_each: float
    """Up and down, above TCP."""
    work_j_each: float


class Choice(NamedTuple):
    """Settings of a sweep: means over the runs that differ by seed alone."""

    label: str
    quality: float
    """Accuracy or loss on held-out data at the end."""
    as_good: bool
    """Whether it is within `Choices.slack` of the best."""
    price: Price | None
    """None: not all of its runs came to the goal."""


class Choices(NamedTuple):
    """All settings of a sweep, and what they are compared by."""

    measure: str
    goal: float
    """What the worst of the runs that are as good as the best has come to at its best."""
    slack: float
    """Differences that are none: half a point of accuracy or a hundredth of the loss, or by how much the runs
    of the best settings lie apart, if that is more."""
    spread: bool
    """Whether it is."""
    rows: list[Choice]
    best: Choice
    """The one of `rows` that ends best."""

    def least(self, of: Callable[[Price], float]) -> Choice | None:
        """Of the settings that are as good as the best the one with the lowest price."""
        priced = [(of(row.price), row) for row in self.rows if row.as_good and row.price is not None]
        return min(priced, key=lambda found: found[0])[1] if priced else None


def choices(grouped: Sequence[Curve]) -> Choices | None:
    """Compares settings; None where there is nothing to compare: one setting, or runs without versions."""
    runs = [run for curve in grouped for run in curve.runs]
    measure = curves.measured(runs)
    sign = 1.0 if measure == "accuracy" else -1.0
    ends = [[curves.last(run, measure) for run in curve.runs] for curve in grouped]
    known = [[value for value in found if value is not None] for found in ends]
    if (
        len(grouped) < 2
        or not curves.made(runs)
        or any(len(a) < len(b) for a, b in zip(known, ends, strict=True))
    ):
        return None
    means = [sum(found) / len(found) for found in known]
    best = max(range(len(means)), key=lambda i: sign * means[i])
    least = _POINTS if measure == "accuracy" else _SHARE * means[best]
    apart = max(known[best]) - min(known[best])
    slack = max(least, apart)
    good = [sign * (means[best] - mean) <= slack for mean in means]
    bests = [
        curves.best(run, measure)
        for curve, fine in zip(grouped, good, strict=True)
        for run in curve.runs
        if fine
    ]
    goal = sign * min(sign * value for value in bests if value is not None)
    rows = [
        Choice(
            curve.label,
            mean,
            fine,
            _mean([_first(run, measure, sign, goal) for run in curve.runs]),
        )
        for curve, mean, fine in zip(grouped, means, good, strict=True)
    ]
    return Choices(measure, goal, slack, apart > least, rows, rows[best])


def _first(run: Result, measure: str, sign: float, goal: float) -> Price | None:
    """What a run had cost when a version first came to the goal."""
    for row in run.rounds:
        value = getattr(row, measure)
        if row.version is not None and value is not None and sign * (value - goal) >= 0:
            return _price(run, row)
    return None


def _price(run: Result, row: RoundRow) -> Price:
    n = run.totals.devices
    return Price(row.round, row.hours, (row.bytes_up + row.bytes_down) / n, row.work_joules / n)


def _mean(prices: Sequence[Price | None]) -> Price | None:
    known = [p for p in prices if p is not None]
    if not known or len(known) < len(prices):
        return None
    return Price(*(sum(column) / len(known) for column in zip(*known, strict=True)))
