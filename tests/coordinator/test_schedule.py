"""Laws of schedules, and the clocks of real places."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coordinator.schedule import DAYS, NEVER, Schedule, schedule_of
from laconic.errors import ConfigError

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")
TIMES = st.builds(lambda h, m: f"{h:02d}:{m:02d}", st.integers(0, 23), st.integers(0, 59))
MOMENTS = st.integers(0, 2_000_000_000).map(float)
DAY = 86400.0


def at(zone: str, text: str, fold: int = 0) -> float:
    """A moment by the clocks of a zone, in seconds since 1970."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def local(schedule: Schedule, moment: float) -> datetime:
    return datetime.fromtimestamp(moment, schedule.zone)


@given(TIMES, TIMES, st.sets(st.sampled_from(DAYS), min_size=1), st.sampled_from(ZONES), MOMENTS)
def test_a_window_is_open_or_opens_within_nine_days(
    start: str, end: str, days: set[str], zone: str, now: float
) -> None:
    if start == end:
        return
    schedule = schedule_of(start=start, end=end, days=",".join(days), time_zone=zone)
    opens = schedule.opens_at(now, since=now)
    assert now <= opens <= now + 9 * DAY
    assert schedule.opens_at(opens, since=now) == opens, "when it opens it is open"
    if opens > now:
        begins = local(schedule, opens)
        assert DAYS[begins.weekday()] in days
        # Where clocks skip the start, they show a later time.
        assert (
            begins.strftime("%H:%M") == start
            or begins.utcoffset() != local(schedule, opens - DAY).utcoffset()
        )


@given(TIMES, st.sets(st.sampled_from(DAYS), min_size=1), st.sampled_from(ZONES), MOMENTS)
def test_without_an_end_there_is_one_opening_a_day(
    start: str, days: set[str], zone: str, since: float
) -> None:
    schedule = schedule_of(start=start, days=",".join(days), time_zone=zone)
    first = schedule.opens_at(since, since=since)
    assert since < first <= since + 9 * DAY
    second = schedule.opens_at(first, since=first)
    assert second - first >= DAY - 3 * 3600, "not twice on one day, whatever the clocks do"
    late = first + 5000.0
    assert schedule.opens_at(late, since=since) == max(late, first), "a start that went by is made up for"


@given(MOMENTS)
def test_no_schedule_is_always_open_and_a_pause_never(now: float) -> None:
    assert schedule_of().opens_at(now, since=0.0) == now
    assert schedule_of(paused=True).opens_at(now, since=0.0) == NEVER


def test_a_night_belongs_to_the_day_on_which_it_starts() -> None:
    nights = schedule_of(start="22:00", end="06:00", days="fri", time_zone="Europe/Berlin")
    saturday = at("Europe/Berlin", "2026-01-10T05:59")
    assert nights.opens_at(saturday, since=0.0) == saturday
    assert nights.opens_at(saturday + 60, since=0.0) == at("Europe/Berlin", "2026-01-16T22:00")


@pytest.mark.parametrize(
    ("start", "now", "opens"),
    [
        ("02:30", "2026-03-28T12:00", "2026-03-29T03:30+02:00"),  # 02:00 to 03:00 does not exist
        ("02:30", "2026-10-24T12:00", "2026-10-25T02:30+02:00"),  # 02:00 to 03:00 comes twice
        ("02:00", "2026-07-01T12:00", "2026-07-02T02:00+02:00"),
        ("02:00", "2026-12-31T12:00", "2027-01-01T02:00+01:00"),
    ],
)
def test_daylight_saving_in_berlin(start: str, now: str, opens: str) -> None:
    moment = at("Europe/Berlin", now)
    found = schedule_of(start=start, time_zone="Europe/Berlin").opens_at(moment, since=moment)
    assert found == datetime.fromisoformat(opens).timestamp()


def test_an_hour_that_comes_twice_opens_once() -> None:
    schedule = schedule_of(start="02:30", time_zone="Europe/Berlin")
    first = at("Europe/Berlin", "2026-10-25T02:30", fold=0)
    again = at("Europe/Berlin", "2026-10-25T02:30", fold=1)
    assert again - first == 3600.0
    assert schedule.opens_at(again, since=first) == at("Europe/Berlin", "2026-10-26T02:30")


@pytest.mark.parametrize(
    ("text", "days"),
    [("", range(7)), ("mon-fri", range(5)), ("fri-mon", (4, 5, 6, 0)), ("sun, TUE", (6, 1)), ("wed", (2,))],
)
def test_days(text: str, days: tuple[int, ...]) -> None:
    assert schedule_of(days=text).days == frozenset(days)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": "24:00"},
        {"start": "2 am"},
        {"end": "06:00"},
        {"start": "06:00", "end": "06:00"},
        {"days": "monday"},
        {"days": "mon-"},
        {"days": ","},
        {"time_zone": "Europe/Atlantis"},
        {"time_zone": ""},
        {"time_zone": "../../etc/passwd"},
        {"time_zone": "Europe"},
        {"time_zone": "\0"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_its_key(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="|".join(f"schedule.{key}" for key in wrong)):
        schedule_of(**wrong)  # type: ignore[arg-type]


def test_a_schedule_needs_no_zone_but_utc() -> None:
    assert Schedule().zone is UTC
