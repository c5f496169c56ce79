"""Whether this device takes a task: the owner's limits and the task's terms, before anything is spent."""

from __future__ import annotations

import msgspec

from laconic.edge_sdk.sensors import Readings
from laconic.protocol.messages import Eligibility


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the device's owner allows. They always win over the coordinator's wishes."""

    min_charge: float = 0.0
    """Lowest state of charge, 0 to 1, at which to work when not charging."""
    only_charging: bool = False
    only_unmetered: bool = False
    max_bytes_per_day: int | None = None
    """Bytes up plus down in a UTC day."""


def refusal(limits: Limits, terms: Eligibility, readings: Readings) -> str | None:
    """Why the device must not work now, or None: battery, charging or metered."""
    floor = max(limits.min_charge, terms.min_charge)
    if readings.charge is not None and readings.charge < floor and not readings.charging:
        return "battery"
    if (limits.only_charging or terms.only_charging) and not readings.charging:
        return "charging"
    if (limits.only_unmetered or terms.only_unmetered) and readings.metered:
        return "metered"
    return None


def over_budget(limits: Limits, *, used_bytes: int, more_bytes: int) -> bool:
    """Whether `more_bytes` on top of today's `used_bytes` would break the daily limit."""
    return limits.max_bytes_per_day is not None and used_bytes + more_bytes > limits.max_bytes_per_day
