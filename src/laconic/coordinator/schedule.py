"""When a campaign may open a round: hours of the day in a time zone, days of the week, or not at all.

A schedule is only about opening: a round that is open when its hours end is finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from laconic.errors import ConfigError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NEVER: Final = float("inf")
_LOOK_AHEAD_DAYS: Final = 9
"""Every schedule has a start among so many days: a week, what a zone may leave out, and the day at hand."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rounds open from `start` to `end`, on `days` (0 is Monday: that of the start), by the clocks of `zone`.

    Without `start` at any time; with `start` but no `end`, one round a day, at that time or as soon after it
    as there are devices. An `end` not after `start` is on the day after. A start that daylight saving skips
    comes as much later as the clocks go forward; of one that comes twice the first counts (PEP 495, fold 0).
    """

    start: time | None = None
    end: time | None = None
    days: frozenset[int] = frozenset(range(7))
    zone: tzinfo = UTC
    paused: bool = False

    def __post_init__(self) -> None:
        """Raises `ConfigError` for an end without a start or equal to it, or for no days."""
        if self.end is not None and self.start is None:
            raise ConfigError("schedule.end", value=self.end, limit="none without schedule.start")
        if self.end is not None and self.end == self.start:
            raise ConfigError("schedule.end", value=self.end, limit="another time than schedule.start")
        if not self.days:
            raise ConfigError("schedule.days", value="none", limit="at least one day")

    def opens_at(self, now: float, *, since: float) -> float:
        """When the next round may open, in seconds since 1970: `now` itself if it may at once, `NEVER` while
        paused. `since`: when the last one was opened, or, before the first, when the campaign began."""
        if self.paused:
            return NEVER
        if self.start is None:
            return now
        if self.end is None:
            starts = self._starts(since)
            return max(now, next(s for s, _ in starts if s > since))
        return max(now, next(s for s, ends in self._starts(now) if now < ends))

    def _starts(self, around: float) -> list[tuple[float, float]]:
        """Start and end of every window from the day before `around` on, in order."""
        assert self.start is not None
        today = datetime.fromtimestamp(around, self.zone).date()
        windows = []
        for ahead in range(-1, _LOOK_AHEAD_DAYS):
            day = today + timedelta(days=ahead)
            if day.weekday() in self.days:
                end = self.end or self.start
                after = day if end > self.start else day + timedelta(days=1)
                begins = datetime.combine(day, self.start, self.zone).timestamp()
                ends = datetime.combine(after, end, self.zone).timestamp()
                windows.append((begins, max(begins, ends)))
        return windows


def schedule_of(
    *, start: str = "", end: str = "", days: str = "", time_zone: str = "UTC", paused: bool = False
) -> Schedule:
    """The schedule that texts describe: times as `HH:MM`, days as `mon-fri,sun` ("" for all), a zone by its
    name in the tz database. Raises `ConfigError` that names the key for anything else."""
    return Schedule(
        _time("schedule.start", start),
        _time("schedule.end", end),
        _days(days),
        zone_of(time_zone, "schedule.time_zone"),
        paused,
    )


def zone_of(name: str, key: str) -> ZoneInfo:
    """A time zone by its name. Raises `ConfigError` for one that this machine does not know."""
    try:
        return ZoneInfo(name)
    # Besides unknown names there are impossible ones, and folders of the database.
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ConfigError(
            key,
            value=name,
            limit="a name of the tz database, such as Europe/Berlin or UTC",
            remedy="check the spelling; where the system has no tz database, install the package tzdata",
        ) from e


def _time(key: str, text: str) -> time | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%H:%M").time()
    except ValueError as e:
        raise ConfigError(key, value=text, limit="HH:MM, 00:00 to 23:59") from e


def _days(text: str) -> frozenset[int]:
    if not text:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.replace(" ", "").lower().split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS or part.endswith("-"):
            raise ConfigError("schedule.days", value=text, limit=f"some of {', '.join(DAYS)}, as mon-fri,sun")
        begin, length = DAYS.index(first), (DAYS.index(last or first) - DAYS.index(first)) % 7
        days |= {(begin + i) % 7 for i in range(length + 1)}
    return frozenset(days)
