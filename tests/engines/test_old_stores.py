"""Stores of every earlier format, frozen in mid-round as the releases of their time wrote them, go on.

Each file of golden/ holds the stores of a `Fleet(devices=3, rounds=4, min_reports=2, chunk_bytes=256)` in
round 3, when two of three updates had been committed: by host and key, in hexadecimal digits.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fleet import SIZE, Fleet, distance

from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.ledger import DeviceRecord
from laconic.coordinator.migrations import FORMAT, upgrade
from laconic.device_sim.world import World
from laconic.storage import MemoryStore

GOLDEN = Path(__file__).parent / "golden"
FORMATS = range(1, FORMAT + 1)


def stores(number: int) -> dict[str, dict[str, bytes | None]]:
    found = json.loads((GOLDEN / f"stores-{number}.json").read_text())
    return {host: {k: bytes.fromhex(v) for k, v in entries.items()} for host, entries in found.items()}


class OldWorld(World):
    """A world whose hosts begin with what they had."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.now = 10.0
        self.stores = stores(number)
        self.upgraded = 0

    def add(self, name: str, *arguments: object, **options: object) -> MemoryStore:
        store = super().add(name, *arguments, **options)  # type: ignore[arg-type]
        store.write(self.stores[name])
        if name == "coordinator":
            self.upgraded = upgrade(store, "default")
        return store


@pytest.mark.parametrize("number", FORMATS)
def test_a_store_of_an_earlier_format_goes_on_in_mid_round(number: int) -> None:
    fleet = Fleet(devices=3, rounds=4, min_reports=2, chunk_bytes=256)
    world = OldWorld(number)
    fleet.world(world)
    assert world.upgraded == number
    before = world.stores["coordinator"]
    prefix = "" if number == 1 else "c/default/"
    sizes = [len(before[f"{prefix}weights/{v:08d}"] or b"") for v in range(3)]
    assert sizes == [4 * SIZE] * 3
    world.run(12.0, stop=lambda: any(n.kind == "resumed" for _, _, n in world.notes))
    (resumed,) = [n for _, _, n in world.notes if n.kind == "resumed"]
    assert resumed.fields["round"] == 3
    committed = resumed.fields["committed"]
    assert isinstance(committed, dict)
    assert set(committed) == {"d0", "d1"}
    fleet.run(world)
    world.run(world.now + 60.0)
    engine = world.node("coordinator")
    assert isinstance(engine, CoordinatorEngine)
    assert engine.finished
    course = engine.courses["default"]
    assert [course.registry[v].updates for v in (1, 2, 3, 4)] == [3, 3, 3, 3]
    said = [n for _, host, n in world.notes if host == "coordinator"]
    again = {n.fields["update"] for n in said if n.kind == "committed"}
    assert not again & set(committed.values()), "nothing counts twice"
    for name in ("d0", "d1", "d2"):
        old = msgspec.msgpack.decode(before[f"device/{name}"] or b"", type=DeviceRecord)
        assert old.committed == 2 + (name in committed)
        assert course.ledger[name].committed == 4
    found = np.frombuffer(before[f"{prefix}weights/00000002"] or b"", "<f4")
    assert distance(course.registry.weights) < distance(found), "and what is learnt is learnt from there"


def test_every_format_that_there_has_been_is_frozen() -> None:
    assert sorted(p.name for p in GOLDEN.glob("stores-*.json")) == [f"stores-{n}.json" for n in FORMATS]
