"""What differs between two runs: settings, then results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from laconic.device_sim.scenario.results import Result

Plain = str | int | float | bool | None


class Difference(NamedTuple):
    """One key in two runs; None where a run does not have it."""

    key: str
    a: Plain
    b: Plain

    @property
    def change(self) -> float | None:
        """By which share `b` is more than `a`, for numbers."""
        if isinstance(self.a, bool) or not isinstance(self.a, (int, float)) or not self.a:
            return None
        return (self.b - self.a) / abs(self.a) if isinstance(self.b, (int, float)) else None


def settings(a: Result, b: Result) -> list[Difference]:
    """Settings that are not the same."""
    return _differences(a.settings, b.settings)


def results(a: Result, b: Result) -> list[Difference]:
    """Totals that are not the same, and what it took to come as far as the worse of the two."""
    found = _differences(msgspec.to_builtins(a.totals), msgspec.to_builtins(b.totals))
    bests = [r.totals.best_accuracy for r in (a, b)]
    goals = [x for x in bests if x is not None]
    if len(goals) == 2:
        found += _prices(a, b, min(goals))
    return found


def _prices(a: Result, b: Result, goal: float) -> Iterator[Difference]:
    first = [next((r for r in x.rounds if (r.accuracy or 0.0) >= goal), None) for x in (a, b)]
    if None in first:
        return
    for name in ("round", "hours", "bytes_up", "bytes_down", "joules", "work_joules"):
        yield Difference(f"to {goal:.3f}: {name}", *(getattr(row, name) for row in first))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    left, right = dict(flat(a)), dict(flat(b))
    keys = dict.fromkeys((*left, *right))
    return [Difference(k, left.get(k), right.get(k)) for k in keys if left.get(k) != right.get(k)]


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Plain]]:
    """Every plain value in tables and lists, by the names on the way to it: named tables have theirs."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            name = inner.get("name", i) if isinstance(inner, Mapping) else i
            yield from flat(inner, f"{key}.{name}")
    else:
        yield key, value
