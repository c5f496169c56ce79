"""What differs between two runs: settings, then results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from laconic.device_sim.scenario.results import Result, RoundRow

Plain = str | int | float | bool | None
_NOTHING: Final = 1e-12
_SHARES: Final = frozenset({"accuracy", "best_accuracy", "joules_by_origin"})
"""Of results: those that are parts of one."""
_LATER: Final = frozenset({"opened", "versions"})
"""Those that an earlier release did not count."""


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

    @property
    def rounding(self) -> bool:
        """Whether both are numbers that are alike in their first five figures, or nothing."""
        if not isinstance(self.a, float) or not isinstance(self.b, float):
            return False
        return max(abs(self.a), abs(self.b)) < _NOTHING or f"{self.a:.5g}" == f"{self.b:.5g}"

    @property
    def change_told(self) -> str:
        """The change in words: of accuracies and shares of results in points, of other numbers relative."""
        if isinstance(self.a, float) and isinstance(self.b, float) and self.key.partition(".")[0] in _SHARES:
            return f"{100 * (self.b - self.a):+.1f} points"
        return "" if self.change is None else f"{100 * self.change:+.1f} %"


def settings(a: Result, b: Result) -> list[Difference]:
    """Settings that are not the same."""
    return _differences(a.settings, b.settings)


def results(a: Result, b: Result) -> list[Difference]:
    """Totals that are not the same, and what each run had cost when it was as good as the worse of the two.

    Keys of the latter: `to accuracy 0.891: bytes_up`, or `to loss 0.137: ...` where there is no
    accuracy. What differs by rounding alone is left out.
    """
    totals = _differences(_totals(a), _totals(b))
    found = [d for d in totals if not (d.rounding or (d.key in _LATER and None in (d.a, d.b)))]
    for measure, sign in (("accuracy", 1.0), ("loss", -1.0)):
        scored = [
            [
                (sign * getattr(row, measure), row)
                for row in r.rounds
                if row.version is not None and getattr(row, measure) is not None
            ]
            for r in (a, b)
        ]
        if all(scored):
            goal = min(max(score for score, _ in rows) for rows in scored)
            first, second = (next(row for score, row in rows if score >= goal) for rows in scored)
            return found + list(_prices(f"to {measure} {sign * goal:.4g}", first, second))
    return found


def _totals(run: Result) -> dict[str, Any]:
    """As they are compared: errors by their number, and no fairness where nobody has sent anything."""
    t = run.totals
    found: dict[str, Any] = msgspec.to_builtins(t) | {"failures": sum(t.failures.values())}
    if not t.committed:
        del found["jain"]
    return found


def _prices(goal: str, a: RoundRow, b: RoundRow) -> Iterator[Difference]:
    for name in ("round", "hours", "bytes_up", "bytes_down", "joules", "work_joules"):
        found = Difference(f"{goal}: {name}", getattr(a, name), getattr(b, name))
        if found.a != found.b and not found.rounding:
            yield found


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
