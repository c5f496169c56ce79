"""Days, months and quiet hours in a device's time zone.

A zone is a name of the tz database or an offset such as `+05:30`; what is neither counts as UTC, since it
comes from outside and must not stop anything.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from laconic.errors import ConfigError

_EPOCH: Final = date(1970, 1, 1)
_OFFSET: Final = re.compile(r"([+-])(\d\d):(\d\d)\Z")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\Z")


@lru_cache(maxsize=1024)
def zone_of(name: str) -> tzinfo:
    """The zone that `name` stands for; UTC for a name that stands for none."""
    return _known(name) or UTC


def check_zone(name: str, key: str) -> str:
    """`name`, if it stands for a zone. Raises `ConfigError` that names `key` for anything else."""
    if _known(name) is None:
        raise ConfigError(
            key,
            value=name,
            limit="a name of the tz database, such as Europe/Rome, or an offset, such as +05:30",
            remedy="without a tz database on this system (package tzdata), use an offset",
        )
    return name


def _known(name: str) -> tzinfo | None:
    if name in ("", "UTC"):
        return UTC
    if found := _OFFSET.match(name):
        minutes = 60 * int(found[2]) + int(found[3])
        sign = -1 if found[1] == "-" else 1
        return timezone(timedelta(minutes=sign * minutes)) if minutes <= 15 * 60 else None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def day_of(now: float, zone: tzinfo) -> int:
    """The local day's number since 1970-01-01."""
    return (datetime.fromtimestamp(now, zone).date() - _EPOCH).days


def month_of(now: float, zone: tzinfo) -> int:
    """The local month's number since January 1970."""
    local = datetime.fromtimestamp(now, zone)
    return 12 * (local.year - 1970) + local.month - 1


def day_ends(now: float, zone: tzinfo) -> float:
    """When the local day is over, in seconds since 1970; after `now`."""
    tomorrow = datetime.fromtimestamp(now, zone).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time.min, zone).timestamp()


def month_ends(now: float, zone: tzinfo) -> float:
    """When the local month is over, in seconds since 1970; after `now`."""
    today = datetime.fromtimestamp(now, zone).date()
    first = date(today.year + today.month // 12, today.month % 12 + 1, 1)
    return datetime.combine(first, time.min, zone).timestamp()


def quiet(now: float, zone: tzinfo, start: int, end: int) -> bool:
    """Whether the local time lies from minute `start` of the day to before minute `end`, over midnight too.

    No minute does where both are the same.
    """
    if start == end:
        return False
    minute = _minute(now, zone)
    return start <= minute < end if start <= end else minute >= start or minute < end


def quiet_ends(now: float, zone: tzinfo, end: int) -> float:
    """When the local clock next shows minute `end` of the day, in seconds since 1970; after `now`."""
    today = datetime.fromtimestamp(now, zone).date()
    for ahead in range(3):
        # A time that daylight saving skips comes as much later as the clocks go forward (PEP 495, fold 0).
        at = datetime.combine(today + timedelta(days=ahead), time(end // 60, end % 60), zone).timestamp()
        if at > now:
            return at
    raise AssertionError("a time of day comes back within two days")


def _minute(now: float, zone: tzinfo) -> int:
    local = datetime.fromtimestamp(now, zone)
    return 60 * local.hour + local.minute


def minutes(text: str, key: str) -> tuple[int, int]:
    """Quiet hours written as `22:00-06:30`, as minutes of the day; "" is none, (0, 0).

    Raises `ConfigError` that names `key` for anything else.
    """
    if not text:
        return 0, 0
    found = [_CLOCK.match(part.strip()) for part in text.split("-")]
    times = [60 * int(m[1]) + int(m[2]) for m in found if m is not None]
    if len(found) != 2 or len(times) != 2 or times[0] == times[1]:
        raise ConfigError(key, value=text, limit="two different times of day, such as 22:00-06:30")
    return times[0], times[1]
