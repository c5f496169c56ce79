"""Bytes and joules by day and month of a time zone, counted from totals that only grow."""

from __future__ import annotations

import msgspec

from laconic.budget.calendar import day_of, month_of, zone_of


class Totals(msgspec.Struct, frozen=True):
    """What a device has spent since `since`, when its counters began (seconds since 1970; 0: not known)."""

    up: int = 0
    down: int = 0
    metered_up: int = 0
    """Of `up`, the bytes that went over a metered network."""
    metered_down: int = 0
    compute: float = 0.0
    """Joules."""
    radio: float = 0.0
    """Joules."""
    since: float = 0.0

    @property
    def bytes(self) -> int:
        return self.up + self.down

    @property
    def joules(self) -> float:
        return self.compute + self.radio


NOTHING = Totals()


def increase(before: Totals, after: Totals) -> Totals:
    """What has been spent between two reports of the totals.

    A total goes back where a device has lost its disk (`since` is another: all it tells is new), or where it
    was killed after it had told more than it had saved: nothing is new then.
    """
    if before.since and before.since != after.since:
        return after
    return Totals(
        max(0, after.up - before.up),
        max(0, after.down - before.down),
        max(0, after.metered_up - before.metered_up),
        max(0, after.metered_down - before.metered_down),
        max(0.0, after.compute - before.compute),
        max(0.0, after.radio - before.radio),
        after.since,
    )


class Period(msgspec.Struct, frozen=True, array_like=True):
    """What has been spent in one day or month; `number` since 1970."""

    number: int = 0
    metered_up: int = 0
    metered_down: int = 0
    unmetered_up: int = 0
    unmetered_down: int = 0
    joules: float = 0.0
    behind: int | None = None
    """The last number seen that lies well before this one: some clock was wrong, then or now."""

    @property
    def metered(self) -> int:
        """Bytes both ways."""
        return self.metered_up + self.metered_down

    @property
    def unmetered(self) -> int:
        """Bytes both ways."""
        return self.unmetered_up + self.unmetered_down

    @property
    def bytes(self) -> int:
        """Bytes of both kinds, both ways."""
        return self.metered + self.unmetered

    def add(self, number: int, more: Totals) -> Period:
        """With `more`, spent in period `number`. A number before the present one changes no period: a
        device that changes its zone may not begin a day anew, nor one whose clock starts in 1970. But where
        periods go by before the present one, its own clock was ahead, and a new period begins with them."""
        if number > self.number:
            old = Period(number)
        elif number >= self.number - 1:
            old = self
        elif self.behind is not None and number > self.behind:
            old = Period(number)
        else:
            old = msgspec.structs.replace(self, behind=number)
        # A message says what it likes of the metered part of its bytes: none is below zero.
        return Period(
            old.number,
            old.metered_up + more.metered_up,
            old.metered_down + more.metered_down,
            old.unmetered_up + max(0, more.up - more.metered_up),
            old.unmetered_down + max(0, more.down - more.metered_down),
            old.joules + more.joules,
            old.behind,
        )


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """What has been spent in the present day and month."""

    day: Period = Period()
    month: Period = Period()

    def add(self, more: Totals, now: float, zone: str) -> Spent:
        """With `more`, spent by `now`: all of it counts to the day and month of `now` in `zone`.

        So what was spent before midnight and told after it counts to the new day: never too little.
        """
        z = zone_of(zone)
        return Spent(self.day.add(day_of(now, z), more), self.month.add(month_of(now, z), more))
