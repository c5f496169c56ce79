"""What one reader tells of the device, and what a reader is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Final, Protocol

_MOST_WATTS: Final = 1000.0
"""No battery or rail of a device gives more; drivers that do not know say 2^31 or 2^32 microwatts."""
_MOST_JOULES: Final = 1e9
_COLDEST_C: Final = -60.0
_HOTTEST_C: Final = 150.0
"""Sensors that are not there say -273 or 255 degrees."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one source; None where it does not tell."""

    charge: float | None = None
    """State of charge, 0 to 1."""
    charging: bool | None = None
    """Whether the device lives on power from outside."""
    power_w: float | None = None
    """What the device takes now, watts: only where that is what the source measures."""
    stored_joules: float | None = None
    """Energy in the battery. What it falls by while the device is on battery is what the device took."""
    temperature_c: float | None = None
    throttled: bool | None = None
    cpu_load: float | None = None
    """0 to 1 of all cores, without this process."""
    metered: bool | None = None
    inferred: tuple[str, ...] = ()
    """Names of the fields above that are worked out from something else than a sensor for them."""
    notes: tuple[str, ...] = ()
    """What else a person may want to know."""

    @property
    def tells(self) -> bool:
        """Whether there is anything in it."""
        return any(getattr(self, name) is not None for name in QUANTITIES)


QUANTITIES: Final = (
    "charge",
    "charging",
    "power_w",
    "stored_joules",
    "temperature_c",
    "throttled",
    "cpu_load",
    "metered",
)


class Reader(Protocol):
    """One source of samples. Used from one thread at a time, never from the event loop's."""

    @property
    def source(self) -> str:
        """What it reads: a path or a command, for people."""
        ...

    @property
    def period_s(self) -> float:
        """How often it is worth asking, seconds."""
        ...

    def read(self) -> Sample:
        """What can be told now; an empty sample when nothing can. It may take seconds, and must not raise."""
        ...


def plausible(s: Sample) -> Sample:
    """The sample without what cannot be: a number that is none, a charge beyond 0 to 1."""
    return replace(
        s,
        charge=_between(s.charge, 0.0, 1.0),
        power_w=_between(s.power_w, 0.0, _MOST_WATTS),
        stored_joules=_between(s.stored_joules, 0.0, _MOST_JOULES),
        temperature_c=_between(s.temperature_c, _COLDEST_C, _HOTTEST_C),
        cpu_load=_between(s.cpu_load, 0.0, 1.0),
    )


def _between(value: float | None, least: float, most: float) -> float | None:
    if value is None or not isfinite(value) or not least <= value <= most:
        return None
    return float(value)
