"""Whether this device takes a task: the owner's limits and the task's terms, before anything is spent."""

from __future__ import annotations

import msgspec

from laconic.budget.allowance import FREE, forbids
from laconic.budget.calendar import minutes
from laconic.config import within
from laconic.edge_sdk.sensors import Readings
from laconic.protocol.messages import Allowance, Eligibility


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the device's owner allows. They always win over the coordinator's wishes."""

    min_charge: float = 0.0
    """Lowest state of charge, 0 to 1, at which to work when not charging."""
    only_charging: bool = False
    only_unmetered: bool = False
    max_bytes_per_day: int | None = None
    """Bytes up plus down in a day of the device's time zone."""
    max_bytes_per_month: int | None = None
    max_metered_bytes_per_day: int | None = None
    """Of those over a metered network."""
    max_metered_bytes_per_month: int | None = None
    max_joules_per_day: float | None = None
    quiet_hours: str = ""
    """`22:00-06:30` by the device's clock: no work then."""
    max_temperature_c: float | None = None
    """No work while a sensor of the machine tells so much or more, degrees Celsius."""
    not_throttled: bool = False
    """No work while the machine holds its clock back, for heat or for want of voltage."""
    max_cpu_load: float | None = None
    """No work while everything else on the machine takes so much or more of all its cores, 0 to 1."""


def checked(limits: Limits) -> Limits:
    """`limits`. Raises `ConfigError` for a limit that is out of its range."""
    for key, most in (("min_charge", 1.0), ("max_cpu_load", 1.0), ("max_joules_per_day", 1e15)):
        within(f"limits.{key}", getattr(limits, key) or 0.0, 0.0, most)
    for period in ("day", "month"):
        for kind in ("", "metered_"):
            key = f"max_{kind}bytes_per_{period}"
            within(f"limits.{key}", getattr(limits, key) or 0, 0, 2**48)
    within("limits.max_temperature_c", limits.max_temperature_c or 0.0, -60.0, 200.0)
    minutes(limits.quiet_hours, "limits.quiet_hours")
    return limits


def allowance_of(limits: Limits) -> Allowance:
    """The owner's limits as an allowance. Raises `ConfigError` for quiet hours that are none."""
    start, end = minutes(limits.quiet_hours, "limits.quiet_hours")
    return Allowance(
        bytes_per_day=limits.max_bytes_per_day,
        bytes_per_month=limits.max_bytes_per_month,
        metered_bytes_per_day=limits.max_metered_bytes_per_day,
        metered_bytes_per_month=limits.max_metered_bytes_per_month,
        joules_per_day=limits.max_joules_per_day,
        min_charge=limits.min_charge,
        only_charging=limits.only_charging,
        only_unmetered=limits.only_unmetered,
        quiet_from=start,
        quiet_until=end,
    )


def refusal(
    limits: Limits,
    terms: Eligibility,
    readings: Readings,
    *,
    allowance: Allowance = FREE,
    now: float = 0.0,
    zone: str = "",
) -> str | None:
    """Why the device must not work now, or None: battery, charging, metered, quiet, busy, hot or throttled.

    What the machine does not tell forbids nothing.
    """
    task = Allowance(
        min_charge=terms.min_charge, only_charging=terms.only_charging, only_unmetered=terms.only_unmetered
    )
    for a in (allowance_of(limits), task, allowance):
        if why := forbids(
            a,
            charge=readings.charge,
            charging=readings.charging,
            metered=readings.metered,
            now=now,
            zone=zone,
        ):
            return why
    return _strain(limits, readings)


def _strain(limits: Limits, readings: Readings) -> str | None:
    """Why the machine itself cannot spare anything now, or None."""
    if readings.busy or _reaches(readings.cpu_load, limits.max_cpu_load):
        return "busy"
    if _reaches(readings.temperature_c, limits.max_temperature_c):
        return "hot"
    return "throttled" if limits.not_throttled and readings.throttled else None


def _reaches(found: float | None, limit: float | None) -> bool:
    return found is not None and limit is not None and found >= limit
