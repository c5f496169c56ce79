"""What is left of an allowance, and what it forbids: the arithmetic of every budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf
from typing import Final

from laconic.budget import calendar
from laconic.budget.spending import Spent, Totals
from laconic.protocol.messages import Allowance

FREE: Final = Allowance()
"""No limit at all."""


@dataclass(frozen=True, slots=True)
class Room:
    """What may still be spent; infinite where nothing is limited."""

    bytes: float = inf
    joules: float = inf

    def less(self, spent_bytes: float, spent_joules: float) -> Room:
        """What is left after this has been spent."""
        return Room(self.bytes - spent_bytes, self.joules - spent_joules)

    def holds(self, more_bytes: float, more_joules: float) -> bool:
        """Whether so much more may be spent."""
        return more_bytes <= self.bytes and more_joules <= self.joules


def of_device(name: str, allowances: Sequence[Allowance]) -> Allowance:
    """The first of `allowances` that is for the device called `name`; without one, there is no limit."""
    return next((a for a in allowances if fnmatchcase(name, a.devices)), FREE)


def limits_something(a: Allowance) -> bool:
    """Whether an allowance has a limit of bytes or joules."""
    # Asked of every device in every round: no loop.
    return not (
        a.bytes_per_day is None
        and a.bytes_per_month is None
        and a.metered_bytes_per_day is None
        and a.metered_bytes_per_month is None
        and a.unmetered_bytes_per_day is None
        and a.unmetered_bytes_per_month is None
        and a.joules_per_day is None
        and a.max_bytes is None
        and a.max_joules is None
    )


def room(
    a: Allowance,
    spent: Spent,
    life: Totals,
    *,
    metered: bool,
    now: float,
    zone: str,
    standing_bytes_per_s: float = 0.0,
) -> Room:
    """What `a` leaves of the day, the month and the device's life.

    `metered`: whether the network is now. `standing_bytes_per_s`: what being connected costs, which is set
    aside until the period ends. `spent` may be of an earlier day: of today, nothing is spent then.
    """
    today = spent.add(Totals(), now, zone)
    day, month, z = today.day, today.month, calendar.zone_of(zone)
    day_kept = standing_bytes_per_s * (calendar.day_ends(now, z) - now)
    month_kept = standing_bytes_per_s * (calendar.month_ends(now, z) - now)
    bounds = [
        (a.bytes_per_day, day.bytes + day_kept),
        (a.bytes_per_month, month.bytes + month_kept),
        (a.max_bytes, life.bytes),
    ]
    if metered:
        bounds += [
            (a.metered_bytes_per_day, day.metered + day_kept),
            (a.metered_bytes_per_month, month.metered + month_kept),
        ]
    else:
        bounds += [
            (a.unmetered_bytes_per_day, day.unmetered + day_kept),
            (a.unmetered_bytes_per_month, month.unmetered + month_kept),
        ]
    energy = ((a.joules_per_day, day.joules), (a.max_joules, life.joules))
    return Room(
        min((limit - used for limit, used in bounds if limit is not None), default=inf),
        min((limit - used for limit, used in energy if limit is not None), default=inf),
    )


def forbids(
    a: Allowance, *, charge: float | None, charging: bool, metered: bool, now: float, zone: str
) -> str | None:
    """Why a device may not work now whatever it costs, or None: battery, charging, metered or quiet."""
    if charge is not None and charge < a.min_charge and not charging:
        return "battery"
    if a.only_charging and not charging:
        return "charging"
    if a.only_unmetered and metered:
        return "metered"
    if calendar.quiet(now, calendar.zone_of(zone), a.quiet_from, a.quiet_until):
        return "quiet"
    return None
