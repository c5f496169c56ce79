"""Ticks of axes: all of an axis in one unit, with as many decimals as it takes to tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import Formatter, MaxNLocator

from laconic.quantities import NBSP

BYTES: Final = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))
JOULES: Final = (("mJ", 1e-3), ("J", 1.0), ("kJ", 1e3), ("MJ", 1e6), ("GJ", 1e9))
NUMBERS: Final = (("", 1.0),)
_TIMES: Final = (
    ("milliseconds", 1e-3, 1.0),
    ("seconds", 1.0, 120.0),
    ("minutes", 60.0, 7200.0),
    ("hours", 3600.0, 259_200.0),
    ("days", 86_400.0, float("inf")),
)
"""Units of time, their seconds, and up to how many seconds they suit."""
_MOST_DECIMALS: Final = 12


class Unit(Formatter):
    """Writes ticks in the largest of some units that the largest of them reaches."""

    def __init__(self, units: Sequence[tuple[str, float]]) -> None:
        self._units = units

    def __call__(self, x: float, pos: int | None = None) -> str:
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """All of an axis at once."""
        most = max((abs(v) for v in values), default=0.0)
        if most == 0.0:
            fits = [u for u in self._units if u[1] == 1.0]
        else:
            fits = [u for u in self._units if most >= u[1] * (1 - 1e-9)] or [self._units[0]]
        # 250 kB rather than 0.25 MB: the unit below, if the largest takes two decimals.
        name, each = min(reversed(fits[-2:]), key=lambda u: max(1, _decimals([v / u[1] for v in values])))
        scaled = [v / each for v in values]
        decimals = _decimals(scaled)
        # A sum, since what is rounded to zero from below is written with its sign.
        words = [f"{round(v, decimals) + 0.0:.{decimals}f}" for v in scaled]
        return [w + NBSP + name if name else w for w in words]


def numbers(axes: Axes, units: Sequence[tuple[str, float]] = NUMBERS, *, whole: bool = False) -> None:
    """The x axis, from 0, with few ticks; `whole`: only at whole numbers. What goes nowhere has room to 1."""
    right = axes.get_xlim()[1]
    if axes.dataLim.x1 <= 0 or whole:
        right = max(right, 1.0)
    axes.set_xlim(0.0, right)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=whole))
    axes.xaxis.set_major_formatter(Unit(units))


def counts(axes: Axes) -> None:
    """The y axis, from 0, for whole numbers."""
    axes.set_ylim(0.0, max(1.0, axes.get_ylim()[1]))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(Unit(NUMBERS))


def times(axes: Axes, words: str, *, each_s: float) -> None:
    """The x axis of times, in the unit that suits their length.

    `words`: with {} where the unit is to stand; `each_s`: the seconds that are 1 in the data.
    """
    most_s = axes.dataLim.x1 * each_s if axes.has_data() else 0.0
    if most_s <= 0:
        most_s = 1.0
    axes.set_xlim(0.0, max(axes.get_xlim()[1], most_s / each_s) if axes.dataLim.x1 > 0 else most_s / each_s)
    unit, unit_s = next((name, seconds) for name, seconds, most in _TIMES if most_s <= most)
    found = MaxNLocator(5).tick_values(0.0, most_s / unit_s)
    told = [float(x) for x in found if 0 <= x * unit_s <= most_s * (1 + 1e-9)]
    axes.set_xticks([x * unit_s / each_s for x in told], Unit(NUMBERS).format_ticks(told))
    label = words.format(unit)
    axes.set_xlabel(label[:1].upper() + label[1:])


def _decimals(values: Sequence[float]) -> int:
    """The fewest with which every value is what it is."""
    found = sorted(set(values))
    gaps = [b - a for a, b in pairwise(found)]
    least = min(gaps, default=0.0) or max(map(abs, found), default=0.0)
    return next(
        (d for d in range(_MOST_DECIMALS) if all(abs(round(v, d) - v) <= 1e-4 * least for v in found)),
        _MOST_DECIMALS,
    )
