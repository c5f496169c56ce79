"""A sample in which every kind of device has its part: by data size, state of charge or group of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

from laconic.coordinator.selection.candidate import Candidate, Context
from laconic.coordinator.selection.settings import SelectionSettings

_MAINS: Final = 2.0
"""The state of charge, for this purpose, of what needs no battery."""


def stratified(
    candidates: Sequence[Candidate], count: int, context: Context, settings: SelectionSettings
) -> list[str]:
    """Systematic sampling of the candidates in the order of their strata, at random within a stratum.

    Each is chosen with the same probability, `count` in n; and of any m that stand side by side in that order
    (a stratum, or several) m * `count` / n are chosen, rounded up or down: Madow and Madow, "On the Theory of
    Systematic Sampling", Annals of Mathematical Statistics 15 (1944).
    """
    if count < 1:
        return []
    draws, key = context.draws(candidates), _KEYS[settings.strata]
    order = sorted(candidates, key=lambda c: (key(c, settings), draws[c.name]))
    n = len(order)
    # In integers: every n-th of the candidates, each as long as `count`, from a random beginning.
    start = int(context.random().integers(n))
    return [order[(start + i * n) // count].name for i in range(count)]


def _charge(c: Candidate, settings: SelectionSettings) -> float:
    return _MAINS if c.charge is None or c.charging else c.charge


def _group(c: Candidate, settings: SelectionSettings) -> float:
    patterns = settings.groups
    return next((i for i, p in enumerate(patterns) if fnmatchcase(c.name, p)), len(patterns))


_KEYS: Final[Mapping[str, Callable[[Candidate, SelectionSettings], float]]] = MappingProxyType(
    {"samples": lambda c, settings: c.samples, "charge": _charge, "groups": _group}
)
