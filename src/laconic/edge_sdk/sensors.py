"""What a device can say of itself: battery, network, bytes, joules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Readings:
    """One reading. Bytes and joules are totals since the process began."""

    charge: float | None = None
    """State of charge, 0 to 1; None without a battery."""
    charging: bool = False
    metered: bool = False
    bytes_up: int = 0
    bytes_down: int = 0
    joules_compute: float = 0.0
    joules_radio: float = 0.0
    measured: bool = False
    """False where the joules are modelled from a profile."""


class Sensors(Protocol):
    """Where readings come from: the machine, a model of it, or a simulated world."""

    def read(self, now: float) -> Readings:
        """The state at `now`, seconds."""
        ...

    def worked(self, seconds: float) -> None:
        """The device has computed for so many seconds."""
        ...


class NoSensors:
    """A device that can say nothing of itself."""

    def read(self, now: float) -> Readings:
        return Readings()

    def worked(self, seconds: float) -> None:
        """Nothing is counted."""
