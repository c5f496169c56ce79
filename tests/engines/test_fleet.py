"""A whole fleet: the same under both drivers, the same each time, and better for having worked together."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from chronicle import logged, settle, verify
from fleet import BUNDLE, SCHEMA, SIZE, Fleet, LinearLearner, distance
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS
from laconic.coordinator.engine import CoordinatorEngine
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.records import restore
from laconic.node import Node
from laconic.protocol.messages import Gate
from laconic.schema import Vector
from laconic.storage import MemoryStore
from laconic.transport.driver import Driver
from laconic.transport.memory import MemoryHub, MemoryLink
from often import examples


def held(store: MemoryStore) -> tuple[str, Vector]:
    """Name and weights of the model on a device's disk."""
    disk = restore(store, SCHEMA, bundle=BUNDLE, initial=np.zeros(SIZE, np.float32))
    return disk.held.name, disk.held.weights


def coordinator_of(world: object) -> CoordinatorEngine:
    node = world.node("coordinator")  # type: ignore[attr-defined]
    assert isinstance(node, CoordinatorEngine)
    return node


def newest(store: MemoryStore) -> bytes:
    """The newest version's weights on a coordinator's disk."""
    return store.get(sorted(store.keys("c/default/weights/"))[-1]) or b""


def test_a_fleet_learns_what_no_device_could_learn_alone() -> None:
    """Each device has fewer rows than there are weights; together they have enough."""
    fleet = Fleet(devices=4, rounds=60)
    world = logged(fleet)
    settle(fleet, world)
    found = np.frombuffer(newest(world.stores["coordinator"]), "<f4")
    assert distance(found) < 0.02
    assert verify(fleet, world) == 240


@pytest.mark.parametrize("targeted", [False, True])
def test_the_same_seed_gives_the_same_trace_byte_for_byte(targeted: bool) -> None:
    def trace() -> tuple[str, str]:
        fleet = Fleet(chunk_bytes=48, targeted=targeted, codec=PRESETS["dense8"])
        world = logged(fleet, repeat=0.1, seed=3)
        world.at(1.0, lambda: world.crash("d1"))
        world.at(1.5, lambda: world.cut("coordinator", 2.0))
        settle(fleet, world)
        return "\n".join(world.trace), repr(world.notes)

    first, second = trace(), trace()
    assert first == second
    assert len(first[0].splitlines()) > 120


def test_another_order_of_arrival_gives_another_trace_and_the_same_model() -> None:
    models, traces = set(), set()
    for start in ((0.0, 0.0, 0.0), (3.0, 0.0, 1.0), (0.0, 5.0, 2.0)):
        fleet = Fleet(min_reports=3)
        world = logged(fleet)
        for name, length in zip(("d0", "d1", "d2"), start, strict=True):
            if length:
                world.at(0.6, partial(world.cut, name, length))
        settle(fleet, world)
        models.add(newest(world.stores["coordinator"]))
        traces.add("\n".join(world.trace))
    assert len(models) == 1
    assert len(traces) == 3


async def in_real_time(fleet: Fleet) -> tuple[bytes, list[tuple[str, Vector]]]:
    """The same engines under the real driver and a broker in memory."""
    hub = MemoryHub()
    coordinator = fleet.coordinator()
    nodes: dict[str, Node] = {"coordinator": coordinator}
    nodes |= {f"d{i}": fleet.device(i) for i in range(fleet.devices)}
    stores = {name: MemoryStore() for name in nodes}
    running = [
        asyncio.ensure_future(Driver(node, MemoryLink(hub, name), stores[name]).run())
        for name, node in nodes.items()
    ]

    def over() -> bool:
        devices = [n for n in nodes.values() if isinstance(n, DeviceEngine)]
        return coordinator.finished and all(
            d.model.weights.tobytes() == newest(stores["coordinator"]) for d in devices
        )

    try:
        async with asyncio.timeout(30):
            while not over():
                for task in running:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)
    finally:
        for task in running:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    return newest(stores["coordinator"]), [held(s) for name, s in stores.items() if name != "coordinator"]


@pytest.mark.parametrize("targeted", [False, True])
def test_both_drivers_end_with_the_same_weights_bit_for_bit(targeted: bool) -> None:
    fleet = Fleet(rounds=5, min_reports=3, targeted=targeted, chunk_bytes=64)
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) == 15
    real, devices = asyncio.run(
        in_real_time(Fleet(rounds=5, min_reports=3, targeted=targeted, chunk_bytes=64))
    )
    assert real == newest(world.stores["coordinator"])
    for name in ("d0", "d1", "d2"):
        assert held(world.stores[name])[1].tobytes() == real
    assert {weights.tobytes() for _, weights in devices} == {real}


@settings(max_examples=examples(12), deadline=None, derandomize=True)
@given(
    st.sampled_from(["exact", "dense8", "small", "tiny"]),
    st.sampled_from(["exact", "dense8", "small", "tiny"]),
    st.sampled_from([16, 100, 48 * 1024]),
    st.integers(1, 4),
    st.integers(1, 8),
)
def test_whatever_the_codecs_the_books_balance(
    codec: str, delta_codec: str, chunk_bytes: int, devices: int, keep_versions: int
) -> None:
    fleet = Fleet(
        devices=devices,
        rounds=4,
        codec=PRESETS[codec],
        delta_codec=PRESETS[delta_codec],
        chunk_bytes=chunk_bytes,
        keep_versions=keep_versions,
        key=b"key",
    )
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) == 4 * devices


def test_a_small_share_that_chooses_too_few_is_widened() -> None:
    """Who is chosen hangs on the task's hash: with a share of 1 % nobody may be, at every extension anew."""
    fleet = Fleet(devices=3, rounds=4, min_reports=2, share=0.01, deadline_s=10.0)
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) >= 8


def test_a_share_asks_some_and_leaves_the_rest_alone() -> None:
    fleet = Fleet(devices=10, rounds=12, min_reports=1, share=0.4)
    world = logged(fleet)
    settle(fleet, world)
    updates = verify(fleet, world)
    assert 12 <= updates < 90
    left_alone = [n for _, _, n in world.notes if n.kind == "not selected"]
    assert len(left_alone) > 20
    assert {host for _, host, n in world.notes if n.kind == "training"} == {f"d{i}" for i in range(10)}


def test_those_chosen_who_vanish_do_not_hold_a_round_for_ever() -> None:
    """All whom the first round has chosen lose their links: when it is extended, others are asked."""
    fleet = Fleet(devices=8, rounds=1, min_reports=2, share=0.5, deadline_s=5.0)
    world = logged(fleet)
    gone: set[str] = set()

    def vanish() -> None:
        gone.update(coordinator_of(world).courses["default"].book.expected)
        for name in gone:
            world.cut(name, 10_000.0)

    world.at(0.62, vanish)
    fleet.run(world, 1000.0)
    assert 2 <= len(gone) <= 6
    assert coordinator_of(world).finished
    first_round = {
        n.fields["device"]
        for _, name, n in world.notes
        if (name, n.kind, n.fields.get("round")) == ("coordinator", "committed", 1)
    }
    assert len(first_round) >= 2
    assert not first_round & gone
    assert [n for _, _, n in world.notes if n.kind == "extended"]


def test_rounds_open_no_sooner_than_their_interval() -> None:
    interval_s = 30.0
    fleet = Fleet(rounds=4, interval_s=interval_s)
    world = logged(fleet)
    settle(fleet, world)
    opened = [t for t, _, n in world.notes if n.kind == "opened"]
    assert len(opened) == 4
    assert all(b - a > interval_s - 1e-6 for a, b in pairwise(opened))
    assert verify(fleet, world) == 12


def test_a_device_of_another_cohort_or_bundle_takes_no_part_and_stops_nobody() -> None:
    fleet = Fleet(devices=2)
    world = logged(fleet)
    others = DeviceSettings("d7", cohort="others")
    world.add("stranger", lambda: DeviceEngine(others, LinearLearner(7)))
    settle(fleet, world)
    assert verify(fleet, world) == 6
    assert not [n for _, host, n in world.notes if host == "stranger" and n.kind == "training"]


def test_silence_by_the_gate_is_not_an_absence() -> None:
    fleet = Fleet(rounds=40, gate=Gate("absolute", 2.0, 1000))
    world = logged(fleet)
    settle(fleet, world)
    assert verify(fleet, world) < 120
    closed = [n.fields for _, _, n in world.notes if n.kind == "closed"]
    assert len(closed) == 40
    assert all(c["absent"] == 0 and c["updates"] + c["silent"] == 3 for c in closed)
    assert sum(c["silent"] for c in closed) > 20
