"""Faults that once happened, and the steps that led to them."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np
import pytest
from chronicle import logged, settle
from fleet import BUNDLE, SCHEMA, SIZE, Fleet, LinearLearner

from laconic.compression import PRESETS, encode
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Trained
from laconic.edge_sdk.records import restore
from laconic.node import Compute, Computed, Connected, Note, Received, Save, Send, Started
from laconic.protocol import messages as m
from laconic.protocol import topics
from laconic.protocol.identity import update_id, weights_hash
from laconic.protocol.messages import Offer, Training
from laconic.schema import Vector
from laconic.storage import MemoryStore


def apply(store: MemoryStore, effects: Any) -> None:
    for e in effects:
        if isinstance(e, Save):
            store.write(e.entries)


def uploading(store: MemoryStore, **settings: Any) -> tuple[DeviceEngine, list[Any]]:
    """A device that has trained for a task and sent its update."""
    device = DeviceEngine(DeviceSettings("d0", **settings), LinearLearner(0))
    apply(store, device.handle(Started(store), 0.0))
    device.handle(Connected(), 0.0)
    effects = device.handle(Received(topics.cohort_task("default"), m.encode(offer(1, device))), 1.0)
    job = next(e for e in effects if isinstance(e, Compute))
    effects = device.handle(Computed("train", job.run()), 2.0)
    apply(store, effects)
    return device, list(effects)


def offer(number: int, device: DeviceEngine, **changes: Any) -> Offer:
    return msgspec.structs.replace(Offer(f"{number:016x}", number, device.model.name, 0, BUNDLE), **changes)


def sends(effects: Any) -> list[str]:
    return [e.topic for e in effects if isinstance(e, Send)]


def answer(device: DeviceEngine, fate: m.Fate, missing: list[int] = []) -> Received:  # noqa: B006
    assert device._delivery.outbox is not None
    return Received(topics.ack("d0"), m.encode(m.Ack(device._delivery.outbox.update, fate, missing)))


def test_missing_chunks_are_sent_once_each_and_then_the_promise() -> None:
    device, effects = uploading(MemoryStore(), chunk_bytes=8)
    total = len([t for t in sends(effects) if "/u/" in t]) - 1
    assert total > 3
    again = sends(device.handle(answer(device, m.Fate.MISSING, [2, 1, 2, 2, 999_999]), 3.0))
    assert [t.rsplit("/", 1)[1] for t in again] == ["1", "2", "fin"]


def test_committed_is_taken_once() -> None:
    store = MemoryStore()
    device, _ = uploading(store)
    before = restore(store, SCHEMA, bundle=BUNDLE, initial=LinearLearner(0).initial)
    ack = answer(device, m.Fate.COMMITTED)
    apply(store, device.handle(ack, 3.0))
    once = restore(store, SCHEMA, bundle=BUNDLE, initial=LinearLearner(0).initial)
    assert before.outbox is not None
    assert once.outbox is None
    assert np.linalg.norm(once.residual.values) < np.linalg.norm(before.residual.values)
    assert device.handle(ack, 4.0) == []


def test_an_unusable_offer_that_waits_does_not_take_the_answers_effects_along() -> None:
    """Recorded: the save of `committed` was lost, and the update taken from the residual twice."""
    store = MemoryStore()
    device, _ = uploading(store)
    bad = offer(2, device, codec=msgspec.msgpack.encode({"kind": "magic"}))
    said = device.handle(Received(topics.cohort_task("default"), m.encode(bad)), 2.5)
    assert [n.fields["error"] for n in said if isinstance(n, Note)] == ["Malformed"]
    effects = device.handle(answer(device, m.Fate.COMMITTED), 3.0)
    apply(store, effects)
    assert store.get("outbox") is None
    assert store.get("residual") == device._retained.residual.values.tobytes()


def test_a_loss_beyond_all_bounds_does_not_silence_a_device() -> None:
    """Recorded: a loss above 1e15 made a promise that the coordinator could not read."""

    class Diverging(LinearLearner):
        def train(
            self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
        ) -> Trained:
            return Trained(weights + np.float32(0.1), 2**30, float("inf"), float("nan"))

    fleet = Fleet(rounds=2)
    world = logged(fleet)
    fleet.learner = lambda i: Diverging(i) if i == 0 else LinearLearner(i)
    settle(fleet, world)
    # 0.1 x 2^24 samples is more than a fold takes: it is refused, but it is answered.
    assert {n.fields["error"] for _, h, n in world.notes if h == "coordinator" and n.kind == "rejected"} == {
        "LimitExceeded"
    }
    assert world.stores["d0"].get("outbox") is None
    assert [n.fields["updates"] for _, _, n in world.notes if n.kind == "closed"] == [2, 2]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x90"])
def test_a_promise_that_cannot_be_read_is_answered(payload: bytes) -> None:
    coordinator = Fleet(devices=1).coordinator()
    coordinator.handle(Started(MemoryStore()), 0.0)
    coordinator.handle(Received(topics.state("d0"), m.encode(m.State(True))), 0.1)
    effects = coordinator.handle(Received(topics.update_fin("d0", "ab" * 8), payload), 0.2)
    acks = [m.decode(m.Ack, e.payload) for e in effects if isinstance(e, Send)]
    assert [(a.update, a.fate) for a in acks] == [("ab" * 8, m.Fate.REJECTED)]


def test_what_was_rejected_is_never_committed() -> None:
    """Recorded: a corrupt chunk, and the true ones delivered again after the rejection."""
    coordinator = Fleet(devices=1).coordinator()
    coordinator.handle(Started(MemoryStore()), 0.0)
    coordinator.handle(Connected(), 0.1)
    opened = coordinator.handle(Received(topics.state("d0"), m.encode(m.State(True, samples=9))), 0.1)
    task = next(m.decode(Offer, e.payload) for e in opened if isinstance(e, Send))
    device = DeviceEngine(DeviceSettings("d0", chunk_bytes=64), LinearLearner(0))
    device.handle(Started(MemoryStore()), 0.0)
    (job,) = [e for e in device.handle(Received(topics.device_task("d0"), m.encode(task)), 1.0)
              if isinstance(e, Compute)]  # fmt: skip
    sent = [e for e in device.handle(Computed("train", job.run()), 2.0) if isinstance(e, Send)]
    fates = []
    for corrupt in (True, False, False):
        for e in sent:
            payload = bytes(len(e.payload)) if corrupt and not e.topic.endswith("fin") else e.payload
            effects = coordinator.handle(Received(e.topic, payload), 3.0)
            fates += [
                m.decode(m.Ack, a.payload).fate
                for a in effects
                if isinstance(a, Send) and "/dn/ack" in a.topic
            ]
    assert fates == [m.Fate.REJECTED] * 3


def test_another_bundle_begins_anew_and_stays_so() -> None:
    """Recorded: the old outbox and residual came back at the second start under the new bundle."""
    store = MemoryStore()
    device, _ = uploading(store)
    assert store.get("outbox") is not None

    class Other(LinearLearner):
        bundle = "cd" * 8

    for _ in range(2):
        device = DeviceEngine(DeviceSettings("d0"), Other(0, bundle="cd" * 8))
        effects = device.handle(Started(store), 10.0)
        apply(store, effects)
        assert device.phase.value == "idle"
        assert not device._retained.residual.values.any()
        skipped = device.handle(
            Received(topics.cohort_task("default"), m.encode(offer(9, device, bundle=BUNDLE))), 11.0
        )
        apply(store, skipped)
        assert store.get("outbox") is None


def test_an_outbox_that_does_not_decode_is_left_aside() -> None:
    store = MemoryStore()
    device, _ = uploading(store)
    assert device._delivery.outbox is not None
    spoilt = msgspec.structs.replace(device._delivery.outbox, frame=device._delivery.outbox.frame[:-1])
    store.write({"outbox": msgspec.msgpack.encode(spoilt)})
    device = DeviceEngine(DeviceSettings("d0"), LinearLearner(0))
    notes = [e for e in device.handle(Started(store), 5.0) if isinstance(e, Note)]
    assert [n.fields["what"] for n in notes] == [["outbox", "residual"]]
    assert device.phase.value == "idle"


def test_an_offer_that_was_displaced_is_not_worked_on_again() -> None:
    """Recorded: a late duplicate sent a device back to an old model."""
    device, _ = uploading(MemoryStore())
    device.handle(answer(device, m.Fate.REJECTED), 3.0)
    second = Received(topics.cohort_task("default"), m.encode(offer(2, device)))
    assert any(isinstance(e, Compute) for e in device.handle(second, 4.0))
    device.handle(Computed("train", RuntimeError("no")), 4.5)
    third = Received(topics.cohort_task("default"), m.encode(offer(3, device)))
    assert any(isinstance(e, Compute) for e in device.handle(third, 4.6))
    first = Received(topics.cohort_task("default"), m.encode(offer(1, device)))
    assert device.handle(first, 5.0) == []
    assert device._offers.waiting is None


def test_a_round_that_changes_nothing_makes_no_version() -> None:
    """Recorded: such a version was its own parent, and a device behind it could never reach it."""

    class Idle(LinearLearner):
        def train(
            self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
        ) -> Trained:
            return Trained(weights.copy(), self.rows, 1.0, 1.0)

    fleet = Fleet(rounds=3)
    world = logged(fleet)
    fleet.learner = Idle
    settle(fleet, world)
    versions = [n.fields["version"] for _, _, n in world.notes if n.kind == "version"]
    assert versions == [0]
    assert [n.fields["updates"] for _, _, n in world.notes if n.kind == "closed"] == [3, 3, 3]
    assert not list(world.stores["coordinator"].keys("c/default/update/"))


def test_a_full_ledger_does_not_spoil_the_books() -> None:
    """Recorded: the update of a device that the ledger refused had been folded already."""
    coordinator = Fleet(devices=1, max_devices=1).coordinator()
    coordinator.handle(Started(MemoryStore()), 0.0)
    opened = coordinator.handle(Received(topics.state("d0"), m.encode(m.State(True, samples=9))), 0.1)
    task = next(m.decode(Offer, e.payload) for e in opened if isinstance(e, Send))
    data = encode(np.ones(SIZE, np.float32), SCHEMA, PRESETS["exact"], np.random.default_rng(0)).frame
    fin = m.Fin(task.task, task.model, len(data), 1, hashlib.sha256(data).digest(), 1)
    update = update_id("d9", fin.task, fin.base, fin.sha256)
    coordinator.handle(Received(topics.update_chunk("d9", update, 0), data), 1.0)
    effects = coordinator.handle(Received(topics.update_fin("d9", update), m.encode(fin)), 1.0)
    assert [e.fields["error"] for e in effects if isinstance(e, Note)] == ["LimitExceeded"]
    skip = m.Skip(task.task, task.model, "gate", 5)
    coordinator.handle(Received(topics.skip("d9"), m.encode(skip)), 1.0)
    course = coordinator.courses["default"]
    assert (course.book.fold.updates, course.book.fold.weight) == (0, 0)
    assert course.round.expected == 1
    assert weights_hash(course.registry.weights, SCHEMA)[:8].hex() == task.model
