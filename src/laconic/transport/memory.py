"""A link to a broker in the same process: the real driver without a socket, for tests and for embedding."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from laconic.node import Will
from laconic.transport.broker import Broker, Delivery
from laconic.transport.link import LinkDown, LinkEvent, LinkUp, Message, WireBytes


class MemoryHub:
    """A broker that the `MemoryLink`s of one process share."""

    def __init__(self) -> None:
        self.broker = Broker()
        self._links: dict[str, MemoryLink] = {}

    def join(self, link: MemoryLink, will: Will | None) -> None:
        """Begin a session for a link."""
        self.broker.connect(link.name, will)
        self._links[link.name] = link

    def leave(self, link: MemoryLink, *, politely: bool) -> None:
        """End a link's session."""
        if self._links.pop(link.name, None) is not None:
            self.deliver(self.broker.disconnect(link.name, politely=politely))

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Put messages into their receivers' queues."""
        for d in deliveries:
            if (link := self._links.get(d.client)) is not None:
                link.receive(d)


class MemoryLink:
    """One client of a `MemoryHub`."""

    def __init__(self, hub: MemoryHub, name: str) -> None:
        self.name = name
        self._hub = hub
        self._events: asyncio.Queue[LinkEvent] = asyncio.Queue()
        self._up = self._down = self._receipt = 0
        self._will: Will | None = None

    async def open(self, will: Will | None) -> None:
        self._will = will
        self.reconnect()

    async def close(self) -> None:
        # No matter to the others whether the broker says goodbye for us or we do.
        self._hub.leave(self, politely=False)

    async def next_event(self) -> LinkEvent:
        return await self._events.get()

    def pending(self) -> bool:
        return not self._events.empty()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        if self._connected():
            self._up += len(topic) + len(payload)
            self._hub.deliver(self._hub.broker.publish(topic, payload, retain=retain))

    def subscribe(self, filters: tuple[str, ...]) -> None:
        if self._connected():
            self._up += sum(map(len, filters))
            self._hub.deliver(self._hub.broker.subscribe(self.name, filters))

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        if self._connected():
            self._up += sum(map(len, filters))
            self._hub.broker.unsubscribe(self.name, filters)

    def acknowledge(self, receipt: int) -> None:
        """Nothing to tell: a clean session redelivers nothing."""

    def wire_bytes(self) -> WireBytes:
        return WireBytes(self._up, self._down, measured=False)

    def receive(self, delivery: Delivery) -> None:
        """Called by the hub."""
        self._receipt += 1
        self._down += len(delivery.topic) + len(delivery.payload)
        self._events.put_nowait(Message(delivery.topic, delivery.payload, self._receipt))

    def drop(self) -> None:
        """Lose the connection, as a radio does: the will is published, nothing is delivered any more."""
        self._hub.leave(self, politely=False)
        self._events.put_nowait(LinkDown("dropped"))

    def reconnect(self) -> None:
        """Have a connection again."""
        self._hub.join(self, self._will)
        self._events.put_nowait(LinkUp())

    def _connected(self) -> bool:
        return self._hub.broker.connected(self.name)
