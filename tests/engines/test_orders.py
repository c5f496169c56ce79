"""Orders by hand under the virtual clock: pause, resume, drain; and what is written down of each round."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec
import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import Fleet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laconic.coordinator import orders
from laconic.coordinator.campaign import Campaign, HistorySettings
from laconic.coordinator.compartment import compartment_of
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.history import History, RoundRecord
from laconic.coordinator.ledger import DeviceRecord
from laconic.coordinator.rounds import Phase
from laconic.coordinator.staleness import Lateness
from laconic.errors import RemoteProtocolError
from laconic.node import Ordered
from laconic.protocol.messages import Gate
from often import examples

QUIET = settings(
    max_examples=examples(8), deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@dataclass
class KeepingFleet(Fleet):
    """A fleet whose campaign keeps so many records of rounds."""

    history: HistorySettings = field(default_factory=HistorySettings)

    def campaign(self) -> Campaign:
        return replace(super().campaign(), history=self.history)


def engine(world: LoggedWorld) -> CoordinatorEngine:
    node = world.node("coordinator")
    assert isinstance(node, CoordinatorEngine)
    return node


def order(world: LoggedWorld, what: orders.Order) -> None:
    if world.node("coordinator") is not None:
        world._feed(world._hosts["coordinator"], Ordered(what))


def records(world: LoggedWorld) -> list[RoundRecord]:
    own = compartment_of(world.stores["coordinator"], "default")
    return list(History(own, HistorySettings()).newest(10**6))


def opened(world: LoggedWorld) -> list[float]:
    return [t for t, _, n in world.notes if n.kind == "opened"]


@QUIET
@given(
    paused_at=st.floats(1.0, 40.0),
    for_s=st.floats(1.0, 200.0),
    crash_at=st.none() | st.floats(1.0, 250.0),
)
def test_a_pause_opens_no_round_over_restarts_and_loses_nothing(
    paused_at: float, for_s: float, crash_at: float | None
) -> None:
    fleet = Fleet(rounds=12, interval_s=5.0)
    world = logged(fleet)
    world.at(paused_at, lambda: order(world, orders.Pause("default")))
    world.at(paused_at + for_s, lambda: order(world, orders.Resume("default")))
    if crash_at is not None:
        world.at(crash_at, lambda: world.crash("coordinator"))
    world.run(paused_at + for_s + 5.0)
    ordered = [t for t, _, n in world.notes if n.kind in ("paused", "continued")]
    if len(ordered) == 2:
        assert not any(ordered[0] < t < ordered[1] for t in opened(world))
    else:
        # It was dead when one of the two came.
        order(world, orders.Resume("default"))
    settle(fleet, world)
    assert verify(fleet, world) == 36


def test_what_is_open_is_finished_while_paused_and_resuming_opens_at_once() -> None:
    fleet = Fleet(rounds=3)
    world = logged(fleet)
    world.run(600.0, stop=lambda: bool(opened(world)))
    order(world, orders.Pause("default"))
    world.run(600.0)
    assert len(records(world)) == 1
    assert engine(world).courses["default"].round.phase is Phase.PAUSED
    world.crash("coordinator")
    world.run(1200.0)
    assert len(opened(world)) == 1
    order(world, orders.Resume("default"))
    settle(fleet, world)
    assert verify(fleet, world) == 9


def test_drained_is_when_the_open_round_is_over_and_a_restart_goes_on() -> None:
    fleet = Fleet(rounds=4)
    world = logged(fleet)
    world.run(600.0, stop=lambda: bool(opened(world)))
    order(world, orders.Drain())
    assert not engine(world).drained
    world.run(600.0)
    assert engine(world).drained
    assert not engine(world).finished
    assert len(opened(world)) == 1
    world.crash("coordinator")
    settle(fleet, world)
    assert verify(fleet, world) == 12


def test_what_cannot_be_done_is_refused_and_changes_nothing() -> None:
    world = logged(Fleet(rounds=2))
    world.run(5.0)
    before = dict(world.stores["coordinator"]._entries)
    for what in (orders.Pause("nobody"), orders.Resume(""), "whatever"):
        with pytest.raises(RemoteProtocolError):
            order(world, what)  # type: ignore[arg-type]
    assert world.stores["coordinator"]._entries == before


def test_keep_saves_what_devices_have_told_since_the_last_write() -> None:
    fleet = Fleet(rounds=1)
    world = logged(fleet)
    settle(fleet, world)
    store = world.stores["coordinator"]
    world.crash("d0")
    world.run(world.now + 0.5)
    order(world, orders.Keep())
    saved = msgspec.msgpack.decode(store.get("device/d0") or b"", type=DeviceRecord)
    assert saved == engine(world).courses["default"].ledger["d0"]
    writes = len(world.chronicle.saves)
    order(world, orders.Keep())
    assert len(world.chronicle.saves) == writes


# --- history


def settled(fleet: Fleet, world: LoggedWorld) -> list[RoundRecord]:
    settle(fleet, world)
    return records(world)


@QUIET
@given(
    crash_at=st.none() | st.floats(1.0, 60.0), silent=st.booleans(), deadline_s=st.sampled_from([0.5, 60.0])
)
def test_everybody_who_was_asked_has_one_fate_and_every_update_is_in_one_record(
    crash_at: float | None, silent: bool, deadline_s: float
) -> None:
    gate = Gate("running", 1.1, force_after=2) if silent else Gate()
    lateness = Lateness(5) if deadline_s < 1 else Lateness()
    fleet = Fleet(devices=4, rounds=6, gate=gate, deadline_s=deadline_s, lateness=lateness)
    world = logged(fleet)
    if crash_at is not None:
        world.at(crash_at, lambda: world.crash("coordinator"))
    found = settled(fleet, world)
    assert [r.number for r in found] == list(range(1, 7))
    for r in found:
        assert r.committed == len(r.who_committed)
        assert r.late == len(r.who_late)
        fates = [*(c.device for c in r.who_committed), *r.who_silent, *r.who_rejected, *r.who_absent]
        assert len(set(fates)) == len(fates)
        if crash_at is None:
            assert sorted(fates) == r.who_asked
            assert r.asked == r.committed + r.silent + r.rejected + r.absent
        assert r.frame_bytes == sum(c.frame_bytes for c in (*r.who_committed, *r.who_late))
        assert r.closed_at >= r.opened_at
    assert sum(r.committed + r.late for r in found) == verify(fleet, world)
    versions = [r.version for r in found if r.version is not None]
    assert versions == list(range(1, len(versions) + 1))


@QUIET
@given(kept=st.integers(0, 5), then=st.integers(0, 5), names=st.integers(0, 3))
def test_so_many_records_are_kept_and_a_lower_number_holds_after_the_next_round(
    kept: int, then: int, names: int
) -> None:
    fleet = KeepingFleet(rounds=6, history=HistorySettings(kept, names))
    world = logged(fleet)
    found = settled(fleet, world)
    assert [r.number for r in found] == list(range(1, 7))[6 - kept :]
    for r in found:
        assert r.asked == r.committed == 3
        assert len(r.who_asked) == len(r.who_committed) == names
    fleet.history, fleet.rounds = HistorySettings(then, names), 7
    world.crash("coordinator")
    world.run(world.now + 5.0)
    assert [r.number for r in settled(fleet, world)] == list(range(1, 8))[max(7 - then, 6 - kept) :]
