"""The processes that are killed: a coordinator, and devices that share a process.

They are the engines, drivers, links and stores of the product; only the training is a few sums, and what
matters later is archived in the same write as it happens: `archive/...` entries, which no engine reads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from laconic.compression import PRESETS
from laconic.coordinator.campaign import Campaign, Committed, Subject
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.migrations import upgrade
from laconic.coordinator.rounds import Plan
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Measured, Trained
from laconic.edge_sdk.work import Outcome
from laconic.node import Computed, Effect, Event, Node, Note, Save, Will
from laconic.protocol.messages import Feedback, Training
from laconic.schema import Schema, TensorSpec, Vector
from laconic.storage import SqliteStore
from laconic.transport import mqtt
from laconic.transport.driver import Driver
from laconic.transport.mqtt import Address, MqttLink
from laconic.transport.process import drive

SCHEMA = Schema((TensorSpec("w", (40, 30)), TensorSpec("b", (40,))))
BUNDLE = "ab" * 8
CODEC = PRESETS["dense8"]
OWN = "c/default/"

ARCHIVE = "archive/"
COMMITTED, TAKEN, CHANGE = ARCHIVE + "committed/", ARCHIVE + "taken/", ARCHIVE + "change/"


def campaign(rounds: int, devices: int) -> Campaign:
    """Short rounds, several chunks an update, nothing forgotten."""
    return Campaign(
        fleet="kills",
        cohort="default",
        plan=Plan(rounds, devices, max(1, devices // 2), 2.0, 0.0),
        training=Training(epochs=1, learning_rate=0.2),
        codec=CODEC,
        delta_codec=CODEC,
        feedback=Feedback(decay=1.0, stale_after=2**40),
        chunk_bytes=256,
    )


@dataclass
class Pull:
    """Training that draws the weights to a point of this device's own."""

    number: int
    schema: Schema = SCHEMA
    bundle: str = BUNDLE
    change: Vector | None = None
    """Of the last training."""

    @property
    def initial(self) -> Vector:
        return np.zeros(SCHEMA.size, np.float32)

    @property
    def samples(self) -> int:
        return 40 + self.number

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        goal = np.random.default_rng(self.number).normal(size=SCHEMA.size).astype(np.float32)
        # Long enough for a kill to find it.
        time.sleep(0.03)
        after = weights + np.float32(training.learning_rate) * (goal - weights)
        self.change = after - weights
        return Trained(after, self.samples, 1.0, 0.5)

    def measure(self, weights: Vector, private: bytes) -> Measured:
        return Measured(1.0, None)


class _Archived:
    """A node whose writes also hold what an oracle will want to know of them."""

    def __init__(self, inner: Node) -> None:
        self.inner = inner

    @property
    def will(self) -> Will | None:
        return self.inner.will

    @property
    def wake_at(self) -> float | None:
        return self.inner.wake_at

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        return [
            replace(e, entries={**e.entries, **self.archive(event, e)}) if isinstance(e, Save) else e
            for e in self.inner.handle(event, now)
        ]

    def archive(self, event: Event, save: Save) -> dict[str, bytes]:
        raise NotImplementedError


class _Coordinator(_Archived):
    """Archives every committed update, and which of them left the store with which version."""

    def archive(self, event: Event, save: Save) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        versions = [key for key in save.entries if key.startswith(f"{OWN}model/")]
        for key, blob in save.entries.items():
            if key.startswith((f"{OWN}update/", f"{OWN}late/")):
                if blob is not None:
                    found[COMMITTED + msgspec.msgpack.decode(blob, type=Committed).update] = blob
                elif versions:
                    found[f"{TAKEN}{max(versions).rsplit('/', 1)[1]}/{key}"] = b""
        return found


class _Device(_Archived):
    """Archives every local change with the write that puts it into the residual."""

    def __init__(self, inner: DeviceEngine, learner: Pull, store: SqliteStore) -> None:
        super().__init__(inner)
        self._learner = learner
        self._changes = len(list(store.keys(CHANGE)))

    def archive(self, event: Event, save: Save) -> dict[str, bytes]:
        match event:
            case Computed("train", Outcome()) if "residual" in save.entries:
                assert self._learner.change is not None
                self._changes += 1
                return {f"{CHANGE}{self._changes:06d}": self._learner.change.tobytes()}
        return {}


def coordinator_life(folder: Path, port: int, rounds: int, devices: int) -> None:
    """One life of the coordinator; notes go to standard output."""
    store = SqliteStore(folder / "coordinator.db")
    upgrade(store, "default")
    subject = Subject(BUNDLE, SCHEMA, np.zeros(SCHEMA.size, np.float32), lambda w: None)
    engine = CoordinatorEngine([(campaign(rounds, devices), subject)])
    link = MqttLink(Address("127.0.0.1", port), "coordinator-kills", persistent=True)

    def tell(note: Note, now: float) -> None:
        if note.kind in ("opened", "closed", "finished", "resumed", "duplicate", "rejected", "dropped"):
            print(json.dumps({"kind": note.kind, **note.fields}, default=str), flush=True)

    asyncio.run(drive([Driver(_Coordinator(engine), link, store, observe=tell).run()]))
    store.close()


def devices_life(folder: Path, port: int, numbers: Sequence[int]) -> None:
    """One life of some devices; it ends when they hold the version that the file `goal` names."""
    engines, drivers, stores = [], [], []
    for number in numbers:
        store, learner = SqliteStore(folder / f"d{number}.db"), Pull(number)
        settings = DeviceSettings(f"d{number}", chunk_bytes=256, retry_s=0.5, retry_most_s=2.0)
        engine = DeviceEngine(settings, learner)
        link = MqttLink(Address("127.0.0.1", port), f"d{number}")
        engines.append(engine)
        stores.append(store)
        drivers.append(Driver(_Device(engine, learner, store), link, store))

    async def settled() -> None:
        goal = folder / "goal"
        while not goal.exists():
            await asyncio.sleep(0.05)
        version = int(goal.read_text())
        while any(e.model.version != version for e in engines) or any(s.get("outbox") for s in stores):
            await asyncio.sleep(0.05)

    asyncio.run(drive([driver.run() for driver in drivers], settled))
    for store in stores:
        store.close()


def main() -> None:
    """`coordinator FOLDER PORT ROUNDS DEVICES` or `devices FOLDER PORT NUMBER...`."""
    # Sooner than a device in the field: a broker is away for less than a second.
    mqtt._BACK_OFF_FIRST_S, mqtt._BACK_OFF_MOST_S = 0.1, 0.3  # type: ignore[misc]
    kind, folder, port, *numbers = sys.argv[1:]
    if kind == "coordinator":
        coordinator_life(Path(folder), int(port), *map(int, numbers))
    else:
        devices_life(Path(folder), int(port), list(map(int, numbers)))


if __name__ == "__main__":
    main()
