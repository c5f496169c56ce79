"""The scale of a current that a driver tells: microamperes by the book, milliamperes in some makers' phones.

The kernel's ABI (Documentation/ABI/testing/sysfs-class-power) and Android's `BATTERY_PROPERTY_CURRENT_NOW`
both ask for microamperes. Drivers differ in scale and in sign, so neither is believed: the scale comes from
what the battery's charge does meanwhile, and before that is known from what a device can take at all.
"""

from __future__ import annotations

from typing import Final

_LEAST_UA: Final = 10_000.0
"""A device that runs a program takes more than 10 mA; as milliamperes the same figure would be 10 A."""
_LEAST_DROP: Final = 0.01
"""Of the full charge: how far it must fall for a judgement."""
_TOLERANCE: Final = 3.0
_FORGET_S: Final = 6 * 3600.0


class CurrentScale:
    """Learns by what to multiply a driver's current, from the charge that leaves the battery meanwhile."""

    def __init__(self) -> None:
        self.learnt: float | None = None
        """1 or 1000; None until the charge has fallen far enough."""
        self._last: tuple[float, float] | None = None
        self._start: tuple[float, float] | None = None
        self._raw_hours = 0.0

    def microamperes(self, raw: float) -> float:
        """The size of a current in microamperes; its sign is dropped."""
        size = abs(raw)
        if self.learnt is not None:
            return size * self.learnt
        return size * 1000.0 if size < _LEAST_UA else size

    def observe(self, at_s: float, raw: float, charge_uah: float, full_uah: float) -> None:
        """A current and a charge, read at the same time while the device lives on its battery."""
        last, self._last = self._last, (at_s, abs(raw))
        if last is None or self._start is None or not 0 < at_s - self._start[0] < _FORGET_S:
            self._start, self._raw_hours = (at_s, charge_uah), 0.0
            return
        self._raw_hours += (at_s - last[0]) / 3600 * (last[1] + abs(raw)) / 2
        dropped = self._start[1] - charge_uah
        if dropped < _LEAST_DROP * full_uah:
            return
        for scale in (1.0, 1000.0):
            if dropped / _TOLERANCE < self._raw_hours * scale < dropped * _TOLERANCE:
                self.learnt = scale
        self._start, self._raw_hours = (at_s, charge_uah), 0.0

    def interrupt(self) -> None:
        """The device is no longer on its battery."""
        self._last = self._start = None
