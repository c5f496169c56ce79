"""What a device can say of itself: battery, network, bytes, joules, temperature and load."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec


class Origin(StrEnum):
    """Where a quantity comes from."""

    MEASURED = "measured"
    MODELLED = "modelled"
    """Computed from a published profile, inferred from something else, or taken from the configuration."""
    UNKNOWN = "unknown"


class Readings(msgspec.Struct, frozen=True):
    """One reading. Bytes and joules are totals since the process began."""

    charge: float | None = None
    """State of charge, 0 to 1; None without a battery."""
    charging: bool = False
    """Whether the device lives on power from outside: charging, full on the charger, or without a battery."""
    metered: bool = False
    bytes_up: int = 0
    bytes_down: int = 0
    joules_compute: float = 0.0
    joules_radio: float = 0.0
    measured: bool = False
    """True only where no joule of the totals is modelled: what the coordinator is told of them."""
    temperature_c: float | None = None
    """The hottest that any sensor tells, degrees Celsius."""
    throttled: bool | None = None
    """Whether the machine holds its clock back now, for heat or for want of voltage."""
    cpu_load: float | None = None
    """0 to 1 of all cores, without what this process takes itself."""
    busy: bool = False
    """Whether the program that the device is part of wants the machine for itself."""
    charge_origin: Origin = Origin.UNKNOWN
    """Of `charge` and `charging`."""
    metered_origin: Origin = Origin.UNKNOWN
    bytes_origin: Origin = Origin.UNKNOWN
    compute_origin: Origin = Origin.UNKNOWN
    radio_origin: Origin = Origin.UNKNOWN
    age_s: float = 0.0
    """Seconds since the oldest of the samples that this is made of."""


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
