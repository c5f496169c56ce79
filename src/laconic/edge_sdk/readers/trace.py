"""Measured energy of the whole device, in slices of time: from its power, or from what its battery loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MOST_GAP_S: Final = 90.0
"""Two powers further apart say nothing of what lies between them."""
_LEAST_DROP_J: Final = 20.0
"""What a battery must lose for a slice: gauges count in steps of 1 mAh (14 J of one cell) and more."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What the device took from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    joules: float
    own_s: float
    """Processor seconds of this process in it."""
    whole: bool
    """True where only the total is known, and nothing of when in the slice it was taken."""


class PowerTrace:
    """Makes slices of successive samples of one source."""

    def __init__(self) -> None:
        self._source: object = None
        self._power: tuple[float, float, float] | None = None
        self._stored: tuple[float, float, float] | None = None
        self._at_a_step = False

    def feed(
        self, at_s: float, own_s: float, *, source: object, power_w: float | None, stored_joules: float | None
    ) -> Slice | None:
        """A sample of `source`, taken at `at_s`; `own_s`: processor seconds of this process so far.

        `stored_joules`: only while the device lives on its battery. Another source begins anew.
        """
        if source != self._source:
            self._source, self._power, self._stored = source, None, None
        last, self._power = self._power, None if power_w is None else (at_s, own_s, power_w)
        if power_w is not None:
            self._stored = None
            if last is None or not 0 < at_s - last[0] <= _MOST_GAP_S:
                return None
            joules = (power_w + last[2]) / 2 * (at_s - last[0])
            return Slice(last[0], at_s, joules, own_s - last[1], whole=False)
        return self._drop(at_s, own_s, stored_joules)

    def _drop(self, at_s: float, own_s: float, stored: float | None) -> Slice | None:
        start = self._stored
        if stored is None or start is None or stored > start[2] or at_s <= start[0]:
            self._stored = None if stored is None else (at_s, own_s, stored)
            self._at_a_step = False
            return None
        if start[2] - stored < _LEAST_DROP_J:
            return None
        stepped, self._at_a_step = self._at_a_step, True
        self._stored = (at_s, own_s, stored)
        # The first step ends a time that nobody saw begin.
        return Slice(start[0], at_s, start[2] - stored, own_s - start[1], whole=True) if stepped else None
