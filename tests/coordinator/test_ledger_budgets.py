"""Laws of the calendar, of what is spent by day and month, of bookings, allowances and predicted costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.budget import calendar, costs
from laconic.budget.allowance import FREE, of_device, room
from laconic.budget.costs import Cost, Learnt
from laconic.budget.spending import Spent, Totals, increase
from laconic.compression import PRESETS
from laconic.coordinator import budgets
from laconic.coordinator.budgets import Bounds, Budget, Group, Work, allowances_of
from laconic.coordinator.ledger import Answer, DeviceRecord, Ledger
from laconic.coordinator.ledger.bookings import booked
from laconic.errors import ConfigError
from laconic.protocol.messages import Allowance, Eligibility, State, Telemetry
from laconic.storage import MemoryStore

ZONES = [
    "",
    "UTC",
    "Europe/Rome",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Pacific/Kiritimati",
    "-03:30",
    "+14:00",
]
TIMES = st.floats(0.0, 4e9)
DAY = 86_400.0

# --- calendar ----------------------------------------------------------------------------------------------


@given(TIMES, st.sampled_from(ZONES))
def test_a_day_ends_when_the_next_begins(now: float, name: str) -> None:
    zone = calendar.zone_of(name)
    ends = calendar.day_ends(now, zone)
    assert now < ends <= now + 26 * 3600
    assert calendar.day_of(ends, zone) == calendar.day_of(now, zone) + 1
    assert calendar.day_of(ends - 1e-3, zone) <= calendar.day_of(now, zone)
    month = calendar.month_ends(now, zone)
    assert ends <= month <= now + 32 * DAY
    assert calendar.month_of(month, zone) == calendar.month_of(now, zone) + 1


@given(TIMES, st.sampled_from(ZONES), st.integers(0, 1439), st.integers(0, 1439))
def test_quiet_hours_end_when_they_say(now: float, name: str, start: int, end: int) -> None:
    zone = calendar.zone_of(name)
    ends = calendar.quiet_ends(now, zone, end)
    assert now < ends <= now + 26 * 3600
    assert not calendar.quiet(now, zone, start, start)
    if start != end:
        assert calendar.quiet(now, zone, start, end) != calendar.quiet(now, zone, end, start)


def test_days_by_the_clocks_of_rome() -> None:
    rome = calendar.zone_of("Europe/Rome")
    spring = datetime(2026, 3, 29, 0, 30, tzinfo=ZoneInfo("Europe/Rome")).timestamp()
    assert calendar.day_ends(spring, rome) - spring == 22.5 * 3600, "the clocks go forward at two"
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC).timestamp()
    assert calendar.day_of(late, rome) == calendar.day_of(late, UTC) + 1
    assert calendar.quiet(late, rome, *calendar.minutes("22:00-06:30", "k"))
    assert not calendar.quiet(late + 6 * 3600, rome, *calendar.minutes("22:00-06:30", "k"))


@given(st.text(max_size=64))
def test_no_text_is_worse_than_an_unknown_zone(text: str) -> None:
    zone = calendar.zone_of(text)
    assert zone.utcoffset(datetime(2026, 1, 1)) is not None


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "Europe", "+25:00", "/etc/localtime", "Nowhere/Land", "\0"]
)
def test_what_is_no_zone_is_utc_to_a_device_and_an_error_to_its_owner(name: str) -> None:
    assert calendar.zone_of(name) is UTC
    with pytest.raises(ConfigError, match="time_zone"):
        calendar.check_zone(name, "time_zone")


@pytest.mark.parametrize(
    "text", ["22:00", "25:00-06:00", "22:00-22:00", "a-b", "1:00-2:00", "01:00-02:00-03:00"]
)
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="quiet"):
        calendar.minutes(text, "quiet")


# --- spending ----------------------------------------------------------------------------------------------

PART = st.integers(0, 10**6)
STEPS = st.lists(st.tuples(st.floats(0, 3 * DAY), PART, PART, st.integers(0, 2)), max_size=20)


@given(STEPS, st.sampled_from(ZONES))
def test_periods_sum_what_was_spent_in_them(steps: list[tuple[float, int, int, int]], zone: str) -> None:
    spent, now, total = Spent(), 1.8e9, Totals(since=1.0)
    by_day: dict[int, int] = {}
    by_month: dict[int, int] = {}
    z = calendar.zone_of(zone)
    for ahead, up, down, metered in steps:
        now += ahead
        more = Totals(up, down, up if metered else 0, down if metered else 0, 1.0, 0.5)
        after = Totals(
            total.up + up, total.down + down, total.metered_up + more.metered_up,
            total.metered_down + more.metered_down, total.compute + 1.0, total.radio + 0.5, 1.0,
        )  # fmt: skip
        spent = spent.add(increase(total, after), now, zone)
        total = after
        for sums, number in ((by_day, calendar.day_of(now, z)), (by_month, calendar.month_of(now, z))):
            sums[number] = sums.get(number, 0) + up + down
    if steps:
        assert spent.day.bytes == by_day[spent.day.number]
        assert spent.month.bytes == by_month[spent.month.number]
        assert spent.month.metered + spent.month.unmetered == spent.month.bytes
        assert spent.day.joules <= spent.month.joules + 1e-9 <= 1.5 * len(steps) + 1e-6


@given(STEPS)
def test_what_a_device_has_told_is_in_its_ledger_whatever_it_lost(
    steps: list[tuple[float, int, int, int]],
) -> None:
    """Killed after it told more than it had saved, or with a new disk: periods hold no more than was told."""
    ledger, now, since, up = Ledger(MemoryStore(), max_devices=1), 1.8e9, 1.8e9, 0
    truly, lives = 0, [0]
    for ahead, more, _, what in steps:
        now += ahead / 100
        if what == 1:
            since, up = since + 1.0, 0
            lives.append(0)
        back = more if what == 2 else 0
        up = max(0, up - back) + (0 if what == 2 else more)
        truly += 0 if what == 2 else more
        lives[-1] = up
        ledger.told("a", Telemetry(None, False, False, up, 0, 0.0, 0.0, since=since), now)
    record = ledger["a"]
    assert record.spent.month.bytes <= truly
    assert record.life.bytes == sum(lives)
    if not any(what == 2 for *_, what in steps) and steps:
        assert record.life.bytes == truly


def test_a_device_with_a_new_disk_begins_its_totals_and_not_its_day() -> None:
    ledger = Ledger(MemoryStore(), max_devices=1)
    tell = lambda up, since, now: ledger.told(  # noqa: E731
        "a", Telemetry(None, False, True, up, 0, 0.0, 0.0, metered_up=up, since=since), now
    )
    tell(5_000, 100.0, 200.0)
    tell(7_000, 100.0, 300.0)
    tell(400, 1_000.0, 1_100.0)
    tell(300, 1_000.0, 1_200.0)
    tell(500, 1_000.0, 1_300.0)
    record = ledger["a"]
    assert record.spent.day.metered_up == 7_000 + 400 + 0 + 200
    assert record.life.bytes == 7_500
    assert record.bytes_up == 500


def test_a_device_from_another_coordinator_brings_no_life_into_the_day() -> None:
    ledger = Ledger(MemoryStore(), max_devices=1)
    ledger.told("a", Telemetry(None, False, False, 10**9, 0, 0.0, 0.0, since=5.0), 40 * DAY)
    assert ledger["a"].spent.day.bytes == 0
    assert ledger["a"].life.bytes == 10**9
    ledger.told("a", Telemetry(None, False, False, 10**9 + 7, 0, 0.0, 0.0, since=5.0), 40 * DAY + 1)
    assert ledger["a"].spent.day.bytes == 7


def test_a_device_that_changes_its_zone_does_not_get_its_day_again() -> None:
    spent = Spent().add(Totals(up=100), 1.8e9, "+14:00")
    assert spent.add(Totals(up=1), 1.8e9, "-12:00").day.bytes == 101
    assert (
        room(Allowance(bytes_per_day=100), spent, Totals(), metered=False, now=1.8e9, zone="-12:00").bytes
        == 0
    )


# --- bookings ----------------------------------------------------------------------------------------------


def test_a_booking_is_kept_until_it_is_paid_or_nobody_answers() -> None:
    store = MemoryStore()
    ledger = Ledger(store, max_devices=2)
    ledger.seen("a", State(True, zone="Europe/Rome"), 1_000.0)
    ledger.book("a", "t1", Cost(100, 50, 2.0), 1_000.0)
    ledger.book("a", "t1", Cost(100, 60, 3.0), 1_001.0)
    assert booked(ledger["a"], 1_001.0) == (160, 3.0), "offered again it is booked once"
    store.write(ledger.unsaved())
    ledger = Ledger(store, max_devices=2)
    assert booked(ledger["a"], 1_002.0) == (160, 3.0), "a booking survives"
    ledger.answered("a", Answer("t1", 10, 2, 3, frame=80, norm=1.5))
    assert booked(ledger["a"], 1_002.0) == (160, 3.0), "what it truly cost is not told yet"
    ledger.book("a", "t2", Cost(1, 1, 1.0), 1_003.0)
    ledger.told("a", Telemetry(None, False, False, 90, 40, 1.0, 0.5, since=900.0), 1_004.0)
    record = ledger["a"]
    assert booked(record, 1_004.0) == (2, 1.0), "only the task that is open is left"
    assert record.spent.day.bytes == 130
    assert record.learnt.joules_per_sample == 1.0 / 20
    assert (record.learnt.frame_bytes, record.held_version) == (80, 3)
    assert (record.given_samples, record.norm_sum) == (10, 1.5)
    ledger.vanished("a", "t2")
    assert booked(ledger["a"], 1_005.0) == (0, 0.0)
    assert (ledger["a"].answered, ledger["a"].vanished) == (1, 1)
    ledger.told("a", Telemetry(None, False, False, 95, 40, 1.0, 0.5, since=900.0), 1_006.0)
    assert ledger["a"].spent.day.bytes == 135, "what it spent nevertheless counts"


def test_a_booking_of_yesterday_stops_nothing() -> None:
    ledger = Ledger(MemoryStore(), max_devices=1)
    ledger.book("a", "t", Cost(10, 10, 1.0), DAY - 1)
    assert booked(ledger["a"], DAY - 0.5) == (20, 1.0)
    assert booked(ledger["a"], DAY) == (0, 0.0)


@given(st.lists(st.booleans(), max_size=200))
def test_reliability_is_the_rule_of_succession_and_then_forgets(outcomes: list[bool]) -> None:
    ledger = Ledger(MemoryStore(), max_devices=1)
    for i, answers in enumerate(outcomes):
        ledger.put(ledger["a"])
        if answers:
            ledger.answered("a", Answer(str(i), 1, 1, 0))
        else:
            ledger.vanished("a", str(i))
    record = ledger["a"]
    assert 0 < record.reliability < 1
    if len(outcomes) <= 18:
        assert record.reliability == pytest.approx((sum(outcomes) + 1) / (len(outcomes) + 2))


# --- allowances --------------------------------------------------------------------------------------------


def test_the_narrowest_table_that_says_something_counts() -> None:
    budget = Budget(
        bytes_per_day=1_000, only_charging=True, quiet_hours="22:00-06:00",
        group=[Group(devices="gw-*", bytes_per_day=50_000), Group(devices="*-7", joules_per_day=5.0)],
        device={"gw-7": Bounds(only_charging=False, quiet_hours="")},
    )  # fmt: skip
    found = allowances_of(budget)
    one = of_device("gw-7", found)
    assert (one.bytes_per_day, one.only_charging, one.joules_per_day) == (50_000, False, None)
    assert (one.quiet_from, one.quiet_until) == (0, 0)
    group = of_device("cam-7", found)
    assert (group.bytes_per_day, group.joules_per_day, group.only_charging) == (1_000, 5.0, True)
    assert of_device("gw-1", found).bytes_per_day == 50_000
    assert of_device("x", found).quiet_from == 22 * 60
    assert allowances_of(Budget()) == []


@pytest.mark.parametrize(
    ("budget", "key"),
    [
        (Budget(bytes_per_day=-1), "budget"),
        (Budget(device={"d": Bounds(min_charge=1.5)}), "budget.device.d"),
        (Budget(group=[Group(devices="d*", quiet_hours="9")]), r"d\*.*quiet_hours"),
        (Budget(group=[Group(devices=f"d{i}") for i in range(64)]), "groups"),
    ],
)
def test_a_budget_that_cannot_be_is_named(budget: Budget, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        allowances_of(budget)


LIMIT = st.none() | st.integers(0, 2_000)


@given(LIMIT, LIMIT, LIMIT, st.booleans(), PART, PART)
def test_what_is_left_is_what_the_tightest_limit_leaves(
    day: int | None, month: int | None, kind: int | None, metered: bool, before: int, now_up: int
) -> None:
    a = Allowance(bytes_per_day=day, bytes_per_month=month,
                  **{("" if metered else "un") + "metered_bytes_per_day": kind})  # fmt: skip
    noon = datetime(2026, 6, 15, 12, tzinfo=UTC).timestamp()
    part = lambda n: Totals(up=n, metered_up=n if metered else 0)  # noqa: E731
    spent = Spent().add(part(before), noon - DAY, "").add(part(now_up), noon, "")
    expected = min(
        [
            limit - used
            for limit, used in ((day, now_up), (month, before + now_up), (kind, now_up))
            if limit is not None
        ],
        default=inf,
    )
    assert room(a, spent, Totals(), metered=metered, now=noon, zone="").bytes == expected
    other = room(a, spent, Totals(), metered=not metered, now=noon, zone="").bytes
    assert other >= expected


def test_what_a_connection_costs_is_set_aside_until_the_day_ends() -> None:
    a = Allowance(bytes_per_day=10_000)
    early = room(a, Spent(), Totals(), metered=False, now=DAY * 9, zone="", standing_bytes_per_s=0.1)
    late = room(a, Spent(), Totals(), metered=False, now=DAY * 10 - 10, zone="", standing_bytes_per_s=0.1)
    assert (early.bytes, late.bytes) == (10_000 - 8_640, 10_000 - 1)


# --- costs -------------------------------------------------------------------------------------------------


def test_the_radio_of_the_prior_is_the_published_one() -> None:
    """One packet over LTE: 12.76 J measured by Huang et al. (2012), 12.59 by the tables with promotion."""
    assert costs.lte_joules(0, 0, 1) == pytest.approx(12.59, abs=0.01)


@given(st.integers(0, 10**7), st.integers(256, 65_536))
def test_a_frame_fits_where_there_is_room_for_it(room_bytes: int, chunk: int) -> None:
    frame = costs.frame_room(room_bytes, chunk)
    if frame >= 0:
        assert costs.upload_bytes(frame, chunk) <= room_bytes


@given(st.lists(st.tuples(PART, st.integers(1, 1000), st.floats(0, 1e3), st.floats(0, 1e3)), min_size=1))
def test_a_prediction_is_never_below_what_was_just_seen(tasks: list[tuple[int, int, float, float]]) -> None:
    learnt = Learnt()
    for size, samples, compute, radio in tasks:
        spent = Totals(up=size + 1, down=10, compute=compute, radio=radio)
        learnt = costs.learn(learnt, spent, samples=samples, frame=size)
        assert costs.training_joules(learnt, samples) >= compute * (1 - 1e-9) - 1e-12
        assert costs.radio_joules(learnt, size + 1, 10, costs.BURSTS) >= radio * (1 - 1e-9) - 1e-12
        assert learnt.frame_bytes is not None
        assert learnt.frame_bytes >= size * (1 - 1e-9)


def work(**changed: object) -> Work:
    deltas = {v: 100 * v for v in range(3, 11)}
    usual: dict[str, object] = {
        "task": "t", "epochs": 2, "codec": PRESETS["small"], "chunk_bytes": 4096, "dense_bytes": 40_000,
        "version": 10, "deltas": deltas, "fulls": {4: 900, 8: 1_000},
    }  # fmt: skip
    return Work(**(usual | changed))  # type: ignore[arg-type]


def test_the_way_to_a_model_is_the_shorter_one() -> None:
    size = lambda held: budgets.download_of(held, work())  # noqa: E731
    assert size(10) == 0
    assert size(9) == costs.download_bytes([1_000], 4096, 1), "one delta"
    assert size(7) > size(8) > size(9)
    assert size(3) == costs.download_bytes([1_000, 900, 1_000], 4096, 7), "version 8 and two deltas"
    assert size(12) == size(0) == costs.download_bytes([1_000, 900, 1_000], 4096, 3), "no other way"


@given(st.integers(0, 40_000), st.integers(0, 50_000), st.integers(0, 10))
def test_a_device_is_asked_for_what_fits(frame: int, left: int, held: int) -> None:
    record = DeviceRecord("a", held_version=held, samples=10, learnt=Learnt(0.1, 0.01, float(frame)))
    a = Allowance(bytes_per_day=left)
    cost, codec = budgets.predicted(record, work(), budgets.room_of(record, a, 0.0))
    refused = budgets.refusal(record, Eligibility(), a, now=0.0, cost=cost)
    if refused is None:
        assert cost.bytes <= left
        assert codec.budget_bytes <= max(1, frame)
    if codec.budget_bytes:
        free, _ = budgets.predicted(record, work(), budgets.room_of(record, FREE, 0.0))
        assert free.bytes > left, "only where the usual update would be too long"
    assert cost.joules >= 0.1 * 10 * 2


def test_who_rests_or_has_quiet_hours_is_not_asked() -> None:
    a = Allowance(quiet_from=60, quiet_until=120)
    at = lambda minute, **has: budgets.refusal(  # noqa: E731
        DeviceRecord("a", **has), Eligibility(), a, now=60.0 * minute
    )
    assert (at(59), at(60), at(119), at(120)) == (None, "quiet", "quiet", None)
    assert at(59, zone="+00:30") == "quiet"
    assert at(130, rest_until=130 * 60.0 + 1) == "resting"


def test_records_with_all_of_it_come_back_whole() -> None:
    store = MemoryStore()
    ledger = Ledger(store, max_devices=1)
    ledger.seen("a", State(True, zone="Asia/Kathmandu"), 5.0)
    ledger.book("a", "t", Cost(1, 2, 3.0), 5.0)
    ledger.told("a", Telemetry(0.5, True, True, 10, 20, 1.5, 2.5, True, 4, 5, 1.0), 6.0)
    before = ledger["a"]
    store.write(ledger.unsaved())
    assert Ledger(store, max_devices=1)["a"] == msgspec.structs.replace(before, online=False)
    assert timedelta(hours=5, minutes=45) == calendar.zone_of(before.zone).utcoffset(datetime(2026, 1, 1))
