"""A device and a coordinator on a broker in this process; the lives are supervised as those of `Device`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fleet import Fleet, LinearLearner

from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Learner
from laconic.edge_sdk.salvage import open_store
from laconic.edge_sdk.supervisor import Pauses, keep_alive
from laconic.node import Note
from laconic.storage import MemoryStore
from laconic.transport.driver import Driver
from laconic.transport.memory import MemoryHub, MemoryLink


class Lives:
    """What is heard of them, and the engine of the present life."""

    def __init__(self, store: Path, learner: Learner | None = None) -> None:
        self._store, self._learner = store, learner or LinearLearner(0)
        self.notes: list[Note] = []
        self.told: list[Note] = []
        """By the coordinator."""
        self.engine: DeviceEngine | None = None
        self._hub = MemoryHub()

    def heard(self, kind: str) -> list[Note]:
        return [n for n in self.notes if n.kind == kind]

    async def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for it, as long as it takes within reason."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                while not true():
                    await asyncio.sleep(0.005)
                return
        raise AssertionError(
            f"waited in vain for {what}: {[n.kind for n in self.notes[-20:]]}, {self.told[-3:]}"
        )

    async def more(self, kind: str) -> None:
        """Wait until it is heard once more."""
        before = len(self.heard(kind))
        await self.until(lambda: len(self.heard(kind)) > before, kind)

    async def _live(self, opened: Callable[[], None]) -> None:
        store, note = open_store(self._store)
        opened()
        try:
            engine = DeviceEngine(DeviceSettings("d0", chunk_bytes=256, retry_s=0.5), self._learner)
            driver = Driver(engine, MemoryLink(self._hub, "d0"), store, observe=self._hear)
            if note is not None:
                self._hear(note, 0.0)
            self.engine = engine
            await driver.run()
        finally:
            store.close()

    def _hear(self, note: Note, now: float) -> None:
        self.notes.append(note)

    def play(self, scene: Callable[[], Coroutine[Any, Any, None]], **settings: Any) -> None:
        """Let both live while a scene plays."""

        async def all_of_it() -> None:
            fleet = Fleet(devices=1, rounds=100_000, min_reports=1, deadline_s=0.3, chunk_bytes=256)
            coordinator = Driver(
                fleet.coordinator(),
                MemoryLink(self._hub, "coordinator"),
                MemoryStore(),
                observe=lambda note, now: self.told.append(note),
            )
            pauses = Pauses(first_s=0.05, most_s=0.2)
            running = [
                asyncio.ensure_future(coordinator.run()),
                asyncio.ensure_future(keep_alive(self._live, observe=self._hear, pauses=pauses, **settings)),
            ]
            try:
                await scene()
                assert not [r for r in running if r.done()], [r.exception() for r in running if r.done()]
            finally:
                for r in running:
                    r.cancel()
                await asyncio.gather(*running, return_exceptions=True)

        asyncio.run(all_of_it())
