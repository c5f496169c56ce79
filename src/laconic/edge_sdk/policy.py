"""Whether this device takes a task: the owner's limits and the task's terms, before anything is spent."""

from __future__ import annotations

import msgspec

from laconic.budget.allowance import FREE, forbids
from laconic.budget.calendar import minutes
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
    """Why the device must not work now, or None: battery, charging, metered or quiet."""
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
    return None
