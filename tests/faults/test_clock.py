"""A clock that is wrong by a year, when it is written down or read, silences no device for long."""

from __future__ import annotations

import msgspec
import pytest
from fleet import BUNDLE, LinearLearner
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.budget.spending import Spent, Totals
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.records import Diary
from laconic.node import Compute, Connected, Effect, Received, Save, Started, Subscribe
from laconic.protocol import topics
from laconic.protocol.messages import Offer, encode
from laconic.storage import MemoryStore

NOW, DAY, YEAR = 1_790_000_000.0, 86_400.0, 366 * 86_400.0


def begun(diary: Diary, now: float) -> tuple[DeviceEngine, list[Effect]]:
    """A device that finds this diary and is connected at `now`."""
    store = MemoryStore()
    store.write({"diary": msgspec.msgpack.encode(diary)})
    limits = Limits(max_bytes_per_day=100_000, max_bytes_per_month=1_000_000)
    device = DeviceEngine(DeviceSettings("d0", limits=limits), LinearLearner(0))
    effects = [*device.handle(Started(store), now), *device.handle(Connected(), now)]
    for e in effects:
        if isinstance(e, Save):
            store.write(e.entries)
    return device, effects


def listens(effects: list[Effect]) -> bool:
    return any(topics.cohort_task("default") in e.filters for e in effects if isinstance(e, Subscribe))


def works(device: DeviceEngine, now: float) -> bool:
    """Whether it takes a task."""
    offer = Offer("ab" * 8, 1, device.model.name, 0, BUNDLE)
    effects = device.handle(Received(topics.cohort_task("default"), encode(offer)), now)
    return any(isinstance(e, Compute) for e in effects)


def spent(at: float, amount: int = 90_000) -> Spent:
    return Spent().add(Totals(up=amount), at, "")


@pytest.mark.parametrize("ahead_s", [2 * DAY, YEAR, 50 * YEAR])
def test_a_rest_that_was_begun_by_a_clock_ahead_ends_in_its_time(ahead_s: float) -> None:
    then = NOW + ahead_s
    diary = Diary(bundle=BUNDLE, rest_until=then + 6 * 3600, written_at=then, spent=spent(then))
    device, effects = begun(diary, NOW)
    assert not listens(effects)
    assert device.wake_at is not None
    assert device.wake_at <= NOW + DAY
    diary = Diary(bundle=BUNDLE, rest_until=then - 1, written_at=then)
    assert listens(begun(diary, NOW)[1])


@pytest.mark.parametrize("ahead_s", [5 * DAY, 70 * DAY, YEAR])
def test_what_was_spent_by_a_clock_ahead_counts_today_and_not_for_ever(ahead_s: float) -> None:
    then = NOW + ahead_s
    diary = Diary(bundle=BUNDLE, written_at=then, spent=spent(then, 99_000))
    assert not works(begun(diary, NOW)[0], NOW), "today's limit may have been used up"
    device, _ = begun(diary, NOW)
    assert works(device, NOW + 2 * DAY)


@pytest.mark.parametrize("behind_s", [3 * DAY, YEAR, 50 * YEAR])
def test_a_clock_that_starts_in_the_past_gives_no_new_allowance(behind_s: float) -> None:
    """A board without a battery for its clock, that asks for the time after it has started."""
    diary = Diary(bundle=BUNDLE, written_at=NOW, spent=spent(NOW, 99_000))
    assert not works(begun(diary, NOW - behind_s)[0], NOW - behind_s)
    device, _ = begun(diary, NOW - behind_s)
    device.handle(Received(topics.cohort_task("default"), b""), NOW - behind_s)
    assert not works(device, NOW)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-400, 400), st.integers(0, 5)), min_size=1, max_size=12))
def test_whatever_a_clock_does_a_day_without_jumps_is_counted_whole(steps: list[tuple[int, int]]) -> None:
    account, day = Spent(), 20_000
    for jump, more in steps:
        day = max(1, day + jump)
        account = account.add(Totals(up=more), day * DAY + 1, "")
    # From here on the clock is right: the second day is a new one, and everything in it counts.
    for _ in range(3):
        day += 1
        for hour in range(3):
            account = account.add(Totals(up=7), day * DAY + 3600 * hour, "")
    assert account.day.bytes == 21
