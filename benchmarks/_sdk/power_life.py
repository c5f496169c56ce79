"""One life of a device that will lose its power: the product's engine, driver, link, meter and store.

Only the training is a few sums, and what an oracle will want to know is archived in the same write as it
happens: every local change with the residual it goes into, every frame with its outbox, every update that is
settled with the residual it is taken off. No engine reads these entries.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from _coordinator.lives import ARCHIVE, CHANGE, SCHEMA, Pull

from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Trained
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.power import WireOnly
from laconic.edge_sdk.records import Outbox
from laconic.edge_sdk.salvage import open_store
from laconic.edge_sdk.work import Outcome
from laconic.node import Computed, Effect, Event, Note, Save, Will
from laconic.protocol.messages import Training
from laconic.schema import Vector
from laconic.storage import SqliteStore
from laconic.transport import mqtt
from laconic.transport.driver import Driver
from laconic.transport.mqtt import Address, MqttLink

NAME: Final = "d0"
SENT, SETTLED = ARCHIVE + "sent/", ARCHIVE + "settled/"
CHUNK_BYTES: Final = 256
TRAINING_S: Final = 0.12


class Restless(Pull):
    """Training with another goal for each task: an update that is lost or counted twice shows for ever."""

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        goal = np.random.default_rng(seed).normal(size=SCHEMA.size).astype(np.float32)
        time.sleep(TRAINING_S)
        after = weights + np.float32(training.learning_rate) * (goal - weights)
        self.change = after - weights
        return Trained(after, self.samples, 1.0, 0.5)


class Archived:
    """The device's node; its writes also hold what has happened."""

    def __init__(self, inner: DeviceEngine, learner: Pull, store: SqliteStore) -> None:
        self._inner, self._learner, self._store = inner, learner, store
        self._changes = len(list(store.keys(CHANGE)))
        self._settled = len(list(store.keys(SETTLED)))

    @property
    def will(self) -> Will | None:
        return self._inner.will

    @property
    def wake_at(self) -> float | None:
        return self._inner.wake_at

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        waiting = _outbox(self._store)
        return [
            replace(e, entries={**e.entries, **self._archive(event, e, waiting)})
            if isinstance(e, Save)
            else e
            for e in self._inner.handle(event, now)
        ]

    def _archive(self, event: Event, save: Save, waiting: Outbox | None) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        if isinstance(event, Computed) and isinstance(event.result, Outcome) and "residual" in save.entries:
            assert self._learner.change is not None
            self._changes += 1
            found[f"{CHANGE}{self._changes:06d}"] = self._learner.change.tobytes()
        if raw := save.entries.get("outbox"):
            sent = _read(raw)
            found[f"{SENT}{sent.update}"] = sent.frame
        elif "outbox" in save.entries and "residual" in save.entries and waiting is not None:
            self._settled += 1
            found[f"{SETTLED}{self._settled:06d}"] = waiting.update.encode()
        return found


def _outbox(store: SqliteStore) -> Outbox | None:
    raw = store.get("outbox")
    return _read(raw) if raw else None


def _read(raw: bytes) -> Outbox:
    return msgspec.msgpack.decode(raw, type=Outbox)


def live(folder: Path, port: int, goal: Path, *, limited: bool) -> None:
    """A life; it ends by itself once the file `goal` is there and no update waits for an answer."""
    store, note = open_store(folder / f"{NAME}.db")
    learner = Restless(0)
    link = MqttLink(Address("127.0.0.1", port), NAME)
    settings = DeviceSettings(
        NAME,
        chunk_bytes=CHUNK_BYTES,
        retry_s=0.5,
        retry_most_s=2.0,
        # A device with a limit books what it is about to spend in more places.
        limits=Limits(max_bytes_per_month=2**40 if limited else None),
    )
    engine = DeviceEngine(settings, learner, WireOnly(link.wire_bytes))

    def tell(said: Note, now: float) -> None:
        print(json.dumps({"kind": said.kind, **said.fields}, default=str), flush=True)

    async def settled() -> None:
        while not goal.exists() or store.get("outbox") is not None:
            await asyncio.sleep(0.05)

    if note is not None:
        tell(note, 0.0)
    asyncio.run(_until(settled(), Driver(Archived(engine, learner, store), link, store, observe=tell)))
    store.close()


async def _until(over: Coroutine[Any, Any, None], driver: Driver) -> None:
    """Drive until `over` is; an error of the driver's ends the process."""
    ends = [asyncio.ensure_future(over), asyncio.ensure_future(driver.run())]
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    await asyncio.gather(*ends, return_exceptions=True)
    for end in done:
        end.result()


def main() -> None:
    """`FOLDER PORT GOAL limited|free`."""
    # Sooner than a device in the field: the broker is always there.
    mqtt._BACK_OFF_FIRST_S, mqtt._BACK_OFF_MOST_S = 0.1, 0.3  # type: ignore[misc]
    folder, port, goal, limits = sys.argv[1:]
    live(Path(folder), int(port), Path(goal), limited=limits == "limited")


if __name__ == "__main__":
    main()
