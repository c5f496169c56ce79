"""The two drivers behind one face, so that one suite can hold both to the contract of `laconic.node`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from laconic.device_sim.world import Connection, Speed, World
from laconic.node import Effect, Event, Note, Received, Started, StoreView, Subscribe, Will
from laconic.storage import MemoryStore
from laconic.transport.driver import Driver
from laconic.transport.link import LinkEvent
from laconic.transport.link import Message as LinkMessage
from laconic.transport.memory import MemoryHub, MemoryLink

Journal = list[tuple[str, str]]
"""What was done, in order: ("note", kind), ("saved", key), ("seen", topic)."""


class Script:
    """A node that does what a function tells it, and writes down what it was told and when."""

    def __init__(self, react: Callable[[Script, Event, float], Sequence[Effect]]) -> None:
        self._react = react
        self.events: list[Event] = []
        self.times: list[float] = []
        self.wake_at: float | None = None
        self.will: Will | None = Will("will", b"gone", retain=False)

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        self.events.append(event)
        self.times.append(now)
        return self._react(self, event, now)


class RecordingStore(MemoryStore):
    """A store that writes into the journal, and can be full."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal
        self.fault: Exception | None = None

    def write(self, entries: Mapping[str, bytes | None]) -> None:
        if self.fault is not None:
            raise self.fault
        super().write(entries)
        self.journal.extend(("saved", key) for key in entries)


class Stage(Protocol):
    """A node on a driver, with a witness who hears every topic."""

    journal: Journal
    store: RecordingStore

    def play(self, node: Script, acts: Sequence[tuple[float, Callable[[], None]]], *, until: float) -> None:
        """Run the node from 0 to `until` (small times: on one stage they are real), with acts in between."""
        ...

    def publish(self, topic: str, payload: bytes) -> None:
        """Somebody else publishes."""
        ...

    def cut(self) -> None:
        """The node's link breaks, and is back 0.1 later."""
        ...

    def set_clock_back(self, seconds: float) -> None:
        """Time seems to be earlier."""
        ...

    def spend(self, seconds: float) -> None:
        """Called while an event is handled: handling has taken so long."""
        ...


class _Notes(list[Any]):
    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def append(self, item: Any) -> None:
        self._journal.append(("note", item[2].kind))


@dataclass
class WorldStage:
    """The virtual clock."""

    journal: Journal = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = RecordingStore(self.journal)

    def play(self, node: Script, acts: Sequence[tuple[float, Callable[[], None]]], *, until: float) -> None:
        self.world = world = World(reconnect_s=0.01, restart_s=0.01)
        world.notes = _Notes(self.journal)
        fast = Connection(0.0001, 1e9, 1e9)

        def witness(script: Script, event: Event, now: float) -> Sequence[Effect]:
            match event:
                case Received(topic, _):
                    self.journal.append(("seen", topic))
                case Started():
                    return ()
            return [Subscribe(("#",))] if not isinstance(event, Received) else ()

        world.add("witness", lambda: Script(witness), connection=fast)
        world.add("node", lambda: node, connection=fast, speed=Speed(0.05, 0.0), start_s=0.02)
        world._hosts["node"].store = self.store
        for when, act in acts:
            world.at(0.02 + when, act)
        world.run(0.02 + until)

    def publish(self, topic: str, payload: bytes) -> None:
        self.world._deliver(self.world.broker.publish(topic, payload, retain=False))

    def cut(self) -> None:
        self.world.cut("node", 0.1)

    def set_clock_back(self, seconds: float) -> None:
        self.world.at(self.world.now - seconds, lambda: self.publish("from the past", b"x"))

    def spend(self, seconds: float) -> None:
        """Handling takes no virtual time; what is to happen at one moment is already a busy queue."""


@dataclass
class RealStage:
    """The real clock on asyncio, the broker in memory."""

    journal: Journal = field(default_factory=list)
    offset: float = 0.0

    def __post_init__(self) -> None:
        self.store = RecordingStore(self.journal)

    def play(self, node: Script, acts: Sequence[tuple[float, Callable[[], None]]], *, until: float) -> None:
        asyncio.run(self._play(node, acts, until))

    async def _play(
        self, node: Script, acts: Sequence[tuple[float, Callable[[], None]]], until: float
    ) -> None:
        loop = asyncio.get_running_loop()
        self.hub = MemoryHub()
        journal = self.journal

        class Witness(MemoryLink):
            def receive(self, delivery: Any) -> None:
                journal.append(("seen", delivery.topic))

        witness = Witness(self.hub, "witness")
        await witness.open(None)
        witness.subscribe(("#",))
        self.link = MemoryLink(self.hub, "node")
        self.begin = loop.time()
        driver = Driver(
            node,
            self.link,
            self.store,
            observe=lambda note, now: journal.append(("note", note.kind)),
            clock=lambda: loop.time() - self.begin + self.offset,
        )
        running = asyncio.ensure_future(driver.run())
        for when, act in acts:
            loop.call_later(0.02 + when, act)
        await asyncio.wait((running,), timeout=0.02 + until)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    def publish(self, topic: str, payload: bytes) -> None:
        self.hub.deliver(self.hub.broker.publish(topic, payload, retain=False))

    def cut(self) -> None:
        self.link.drop()
        asyncio.get_running_loop().call_later(0.1, self.link.reconnect)

    def set_clock_back(self, seconds: float) -> None:
        self.offset -= seconds
        self.publish("from the past", b"x")

    def spend(self, seconds: float) -> None:
        self.offset += seconds


__all__ = ["LinkEvent", "LinkMessage", "Note", "RealStage", "Script", "Stage", "StoreView", "WorldStage"]
