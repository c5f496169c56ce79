"""Late updates and buffered rounds: nothing lost, nothing twice, and nobody waited for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from chronicle import LoggedWorld, logged, settle, verify
from fleet import Fleet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS
from laconic.coordinator.campaign import Committed
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.rounds import EVERYBODY
from laconic.coordinator.staleness import Lateness
from laconic.node import Received
from laconic.transport.broker import Delivery
from often import examples, points

HOSTS = ("coordinator", "d0", "d1", "d2")


def late_fleet(*, targeted: bool = False, **changes: Any) -> Fleet:
    """Two fast devices, and one that takes six rounds of theirs."""
    fleet = Fleet(
        rounds=8,
        min_reports=2,
        deadline_s=20.0,
        target_reports=2,
        over_selection=EVERYBODY,
        lateness=Lateness(max_staleness=20),
        codec=PRESETS["dense8"],
        delta_codec=PRESETS["dense8"],
        chunk_bytes=48,
        own_chunk_bytes=lambda i: 48 if i < 2 else 4096,
        targeted=targeted,
        sample_s=lambda i: 1.2e-2 if i == 2 else 1e-3,
    )
    return replace(fleet, **changes)


def notes(world: LoggedWorld, host: str, kind: str) -> list[dict[str, Any]]:
    return [dict(n.fields) for _, h, n in world.notes if h == host and n.kind == kind]


def test_a_slow_device_is_folded_late_and_holds_nobody() -> None:
    fleet = late_fleet()
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) >= 16
    late = [n for n in notes(world, "coordinator", "committed") if n["staleness"]]
    assert max(n["staleness"] for n in late if n["device"] == "d2") >= 3
    assert all(n["discount"] == pytest.approx((1 + n["staleness"]) ** -0.5) for n in late)
    assert not notes(world, "coordinator", "rejected")
    longest = max(n["seconds"] for n in notes(world, "coordinator", "closed"))
    assert longest < 120 * 3 * 1.2e-2 / 3, "no round took a third of the time of the slow device's training"


def test_refused_the_same_change_stays_in_the_residual() -> None:
    fleet = late_fleet(lateness=Lateness())
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) == 16
    assert {n["device"] for n in notes(world, "coordinator", "committed")} == {"d0", "d1"}


def test_what_is_staler_than_allowed_is_not_sent() -> None:
    fleet = late_fleet(lateness=Lateness(max_staleness=2))
    world = logged(fleet)
    settle(fleet, world)
    verify(fleet, world)
    assert all(n["staleness"] <= 2 for n in notes(world, "coordinator", "committed"))
    assert not notes(world, "coordinator", "rejected"), "the device knows the limit from the waiting offer"


def test_over_selection_leaves_the_dead_behind() -> None:
    """Two of six devices never finish: with a target of four nobody waits for them."""

    def dead(i: int) -> float:
        return 1e6 if i >= 4 else 1e-3

    def seconds(**changes: Any) -> float:
        fleet = Fleet(devices=6, rounds=5, deadline_s=100.0, min_reports=4, sample_s=dead, **changes)
        world = fleet.run(fleet.world())
        assert isinstance(node := world.node("coordinator"), CoordinatorEngine)
        assert node.finished
        return world.now

    assert seconds(target_reports=4, over_selection=1.5) < 10.0
    assert 500.0 < seconds() < 600.0, "without, each round lasts to its deadline and no longer"


def test_a_target_asks_so_many_and_no_more() -> None:
    for targeted in (False, True):
        fleet = Fleet(devices=10, rounds=3, target_reports=4, over_selection=1.5, targeted=targeted)
        world = logged(fleet)
        settle(fleet, world)
        verify(fleet, world)
        assert [n["asked"] for n in notes(world, "coordinator", "opened")] == [6, 6, 6]


def test_buffered_is_a_version_for_every_k_updates() -> None:
    fleet = late_fleet(
        devices=6, rounds=12, target_reports=3, min_devices=3, sample_s=lambda i: 1e-3 * (1 + 3 * i)
    )
    world = logged(fleet)
    settle(fleet, world)
    verify(fleet, world)
    closed = notes(world, "coordinator", "closed")
    assert [n["updates"] for n in closed] == [3] * 12
    assert sum(n["late"] for n in closed) >= 8
    assert len({n["device"] for n in notes(world, "coordinator", "committed")}) == 6


def test_an_update_that_comes_between_rounds_counts_in_the_next() -> None:
    fleet = late_fleet(rounds=3, interval_s=30.0)
    world = logged(fleet)
    settle(fleet, world)
    verify(fleet, world)
    opened = [t for t, _, n in world.notes if n.kind == "opened"]
    closed = [(t, n.fields["late"]) for t, _, n in world.notes if n.kind == "closed"]
    came = [
        t
        for t, h, n in world.notes
        if h == "coordinator" and n.kind == "committed" and n.fields["device"] == "d2"
    ]
    assert closed[0][0] < came[0] < opened[1], "in the pause"
    assert closed[1][1] == 1


@pytest.mark.parametrize("crash_between", [False, True])
def test_a_restart_keeps_what_came_between_rounds(crash_between: bool) -> None:
    """The model is the same, bit for bit, whether or not the coordinator was killed in the pause."""
    digests = []
    for crash in {False, crash_between}:
        fleet = late_fleet(rounds=2, interval_s=60.0)
        world = logged(fleet)
        if crash:
            world.at(30.0, lambda world=world: world.crash("coordinator"))
        settle(fleet, world)
        verify(fleet, world)
        assert [n["late"] for n in notes(world, "coordinator", "closed")] == [0, 1]
        digests.append(world.stores["coordinator"].get("c/default/weights/00000002"))
    assert len(set(digests)) == 1


def test_an_old_promise_that_comes_again_with_all_its_chunks_is_not_counted_again() -> None:
    """Every second, everything that devices sent more than a second ago is delivered once more."""
    fleet = late_fleet()
    world = logged(fleet)
    heard: list[tuple[float, Delivery]] = []

    def record(d: Delivery) -> bool:
        if d.client == "coordinator" and "/up/u/" in d.topic:
            heard.append((world.now, d))
        return False

    def repeat() -> None:
        for when, d in heard:
            if when < world.now - 1.0 and world.node("coordinator") is not None:
                world._feed(world._hosts["coordinator"], Received(d.topic, d.payload))

    world.lose = record
    for second in range(2, 12):
        world.at(second + 0.01, repeat)
    settle(fleet, world)
    verify(fleet, world)
    refused = [str(n["why"]) for n in notes(world, "coordinator", "rejected")]
    assert sum("settled" in why for why in refused) >= 3, (
        "with a base that is still known, whole, and yet refused"
    )


def test_a_record_of_an_older_release_is_folded_undiscounted() -> None:
    old = msgspec.msgpack.encode({"update": "u", "device": "d", "weight": 3, "frame": b"f"})
    c = msgspec.msgpack.decode(old, type=Committed)
    assert (c.round, c.base, c.staleness, c.discount) == (0, "", 0, 1.0)


# --- crashes


def small(*, targeted: bool) -> Fleet:
    """Three rounds, in which the slow device is late once or twice, in pauses and in open rounds."""
    return late_fleet(
        targeted=targeted,
        rounds=3,
        chunk_bytes=80,
        sample_s=lambda i: 4e-3 if i == 2 else 1e-3,
        interval_s=1.0,
    )


def crash_everywhere(host: str, *, targeted: bool, parity: int) -> None:
    fleet = small(targeted=targeted)
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) >= 6
    assert sum(n["late"] for n in notes(world, "coordinator", "closed")) >= 1
    total = world.effects_of(host)
    assert total > 25
    for k in points(0, total, stride=3):
        fleet = small(targeted=targeted)
        world = logged(fleet, survives=k % 2 == parity)
        world.crash_at_effect(host, k)
        settle(fleet, world)
        try:
            assert verify(fleet, world) >= 5
        except AssertionError as e:
            raise AssertionError(f"crash of {host} before its effect {k}: {e}") from e


@pytest.mark.thinned
@pytest.mark.parametrize(
    "host", ["coordinator", *(pytest.param(d, marks=pytest.mark.soak) for d in ("d0", "d1")), "d2"]
)
def test_a_crash_before_any_effect_loses_nothing_and_counts_nothing_twice(host: str) -> None:
    crash_everywhere(host, targeted=False, parity=0)


@pytest.mark.soak
@pytest.mark.parametrize(("targeted", "parity"), [(False, 1), (True, 0), (True, 1)])
@pytest.mark.parametrize("host", HOSTS)
def test_the_same_with_other_fates_and_offers_by_name(host: str, targeted: bool, parity: int) -> None:
    crash_everywhere(host, targeted=targeted, parity=parity)


@settings(
    max_examples=examples(25), deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    targeted=st.booleans(),
    buffer=st.integers(1, 3),
    slow=st.floats(1e-3, 2e-2),
    interval_s=st.sampled_from([0.0, 1.0, 5.0]),
    cuts=st.lists(st.tuples(st.sampled_from(HOSTS), st.floats(0.0, 8.0), st.floats(0.1, 30.0)), max_size=5),
    blows=st.lists(st.tuples(st.sampled_from(HOSTS), st.floats(0.0, 8.0)), max_size=4),
    effects=st.dictionaries(st.sampled_from(HOSTS), st.integers(0, 120), max_size=2),
    repeat=st.sampled_from([0.0, 0.2, 0.7]),
    seed=st.integers(0, 1000),
)
def test_lives_of_a_buffered_fleet(
    targeted: bool,
    buffer: int,
    slow: float,
    interval_s: float,
    cuts: list[tuple[str, float, float]],
    blows: list[tuple[str, float]],
    effects: dict[str, int],
    repeat: float,
    seed: int,
) -> None:
    fleet = late_fleet(
        targeted=targeted,
        target_reports=buffer,
        min_reports=1,
        min_devices=1,
        rounds=5,
        interval_s=interval_s,
        sample_s=lambda i: slow if i == 2 else 1e-3,
    )
    world = logged(fleet, repeat=repeat, seed=seed, survives=True)
    for host, when, length in cuts:
        world.at(when, lambda host=host, length=length: world.cut(host, length))
    for host, when in blows:
        world.at(when, lambda host=host: world.crash(host))
    for host, k in effects.items():
        world.crash_at_effect(host, k)
    settle(fleet, world)
    assert verify(fleet, world) >= 5
