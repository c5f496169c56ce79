"""While a group of messages is made durable the next one is handled, and nothing is said before its time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

import pytest

from laconic.errors import DiskFull
from laconic.node import Connected, Effect, Event, Ordered, Received, Save, Send, StoreView, Subscribe, Will
from laconic.node import Started as StartedEvent
from laconic.storage import MemoryStore
from laconic.transport.broker import Delivery
from laconic.transport.driver import Driver
from laconic.transport.memory import MemoryHub, MemoryLink


class Recorder:
    """Saves each message, and says then that it has."""

    will: Will | None = None
    wake_at: float | None = None

    def __init__(self) -> None:
        self.handled: list[str] = []
        self.store: StoreView
        self.seen_at_order: list[str] = []

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case StartedEvent(store):
                self.store = store
            case Connected():
                return [Subscribe(("in/#",))]
            case Received(topic, payload):
                # What earlier messages saved is read as saved, whether or not it is durable.
                assert list(self.store.keys("in/")) == sorted(self.handled)
                assert all(self.store.get(t) == b"new" for t in self.handled[-3:])
                self.handled.append(topic)
                return [Save({topic: payload}), Send(f"out/{topic}", b"", qos=1)]
            case Ordered():
                self.seen_at_order = list(self.store.keys("in/"))
            case _:
                pass
        return []


class GatedStore(MemoryStore):
    """A store whose disk takes as long as it is told to, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.begun = self.ended = 0
        self.fault: Exception | None = None

    def write(self, entries: Mapping[str, bytes | None]) -> None:
        self.begun += 1
        assert self.open.wait(10)
        if self.fault is not None:
            raise self.fault
        super().write(entries)
        self.ended += 1


class Listener(MemoryLink):
    """Hears what is said, and looks then whether it is durable."""

    def __init__(self, hub: MemoryHub, store: GatedStore) -> None:
        super().__init__(hub, "listener")
        self._disk = store
        self.heard: list[str] = []

    def receive(self, delivery: Delivery) -> None:
        topic = delivery.topic.removeprefix("out/")
        assert self._disk.get(topic) is not None, "said before it was durable"
        self.heard.append(topic)


async def flooded(store: GatedStore, then: Callable[[Driver, Recorder, Listener], None]) -> Recorder:
    """A driver to which a message comes at every turn of the loop; `then` once many have come."""
    hub, node = MemoryHub(), Recorder()
    listener = Listener(hub, store)
    await listener.open(None)
    driver = Driver(node, MemoryLink(hub, "recorder"), store)
    running = asyncio.ensure_future(driver.run())
    try:
        while not driver.connected:
            await asyncio.sleep(0)
        listener.subscribe(("out/#",))
        for i in range(300):
            hub.deliver(hub.broker.publish(f"in/{i:03d}", b"new", retain=False))
            await asyncio.sleep(0)
        then(driver, node, listener)
        async with asyncio.timeout(20):
            while len(listener.heard) < 300 and not running.done():
                await asyncio.sleep(0.001)
        if running.done():
            running.result()
        assert listener.heard == node.handled, "in order, each once"
    finally:
        store.open.set()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, DiskFull):
            await running
        assert store.begun - store.ended <= (store.fault is not None), "nobody writes after the end"
    return node


def test_messages_are_handled_while_others_are_made_durable_and_answered_in_order() -> None:
    store = GatedStore()

    def then(driver: Driver, node: Recorder, listener: Listener) -> None:
        assert store.begun == 1
        assert len(node.handled) > 200, "the first write keeps nobody from being handled"
        assert not listener.heard
        store.open.set()

    node = asyncio.run(flooded(store, then))
    assert len(node.handled) == 300
    assert store.ended < 10, "what came meanwhile is one group"


def test_another_event_finds_all_of_it_durable() -> None:
    store = GatedStore()
    durable: list[list[str]] = []

    def then(driver: Driver, node: Recorder, listener: Listener) -> None:
        threading.Timer(0.05, store.open.set).start()
        driver.order("look")
        durable.append(list(store.keys("in/")))
        assert node.seen_at_order == durable[-1] == node.handled == listener.heard

    asyncio.run(flooded(store, then))
    assert len(durable[0]) > 200


def test_a_write_that_fails_ends_the_node_and_nothing_is_answered() -> None:
    store = GatedStore()
    heard: list[list[str]] = []

    def then(driver: Driver, node: Recorder, listener: Listener) -> None:
        heard.append(listener.heard)
        store.fault = DiskFull("cannot write to the store", remedy="make room")
        store.open.set()

    with pytest.raises(DiskFull):
        asyncio.run(flooded(store, then))
    assert heard == [[]]
