"""A coordinator that starts again: on more rounds, on another bundle's store, on damage."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from fleet import BUNDLE, SCHEMA, Fleet

from laconic.coordinator.campaign import Progress, Subject
from laconic.coordinator.engine import CoordinatorEngine
from laconic.device_sim.world import World
from laconic.errors import StorageError
from laconic.node import Connected, Started
from laconic.storage import MemoryStore


def finished(rounds: int) -> tuple[Fleet, World, MemoryStore]:
    fleet = Fleet(devices=2, rounds=rounds)
    world = World()
    store = world.add("coordinator", fleet.coordinator)
    for i in range(fleet.devices):
        world.add(f"d{i}", lambda i=i: fleet.device(i))
    fleet.run(world)
    return fleet, world, store


def test_a_finished_campaign_goes_on_when_more_rounds_are_asked_for() -> None:
    fleet, _, store = finished(2)
    longer = replace(fleet, rounds=4)
    world = World()
    again = world.add("coordinator", longer.coordinator)
    again.write({key: store.get(key) for key in list(store.keys(""))})
    for i in range(fleet.devices):
        world.add(f"d{i}", lambda i=i: longer.device(i))
    longer.run(world)
    progress = msgspec.msgpack.decode(again.get("c/default/progress") or b"", type=Progress)
    assert (progress.number, progress.finished) == (4, True)
    assert len(list(again.keys("c/default/model/"))) == 5


def test_a_finished_campaign_stays_finished() -> None:
    fleet, _, store = finished(2)
    engine = fleet.coordinator()
    engine.handle(Started(store), 1e6)
    assert engine.finished
    assert engine.handle(Connected(), 1e6)


def test_the_store_of_another_bundle_is_refused() -> None:
    """Recorded: one with the same names and shapes was taken for one's own."""
    fleet, _, store = finished(1)
    subject = Subject("cd" * 8, SCHEMA, fleet.device(0).model.weights, lambda w: None)
    other = CoordinatorEngine([(fleet.campaign(), subject)])
    with pytest.raises(StorageError, match=BUNDLE):
        other.handle(Started(store), 0.0)


@pytest.mark.parametrize(
    "key",
    [
        "c/default/progress",
        "c/default/model/00000001",
        "c/default/weights/00000001",
        "c/default/server-residual",
        "device/d0",
    ],
)
def test_a_damaged_entry_is_named(key: str) -> None:
    fleet, _, store = finished(1)
    store.write({key: b"\xc1"})
    with pytest.raises(StorageError, match=key.removeprefix("c/default/").split("/")[0]):
        fleet.coordinator().handle(Started(store), 0.0)
