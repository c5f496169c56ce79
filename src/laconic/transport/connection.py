"""One MQTT connection on asyncio: packets out in batches, messages in with back-pressure, pings."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from laconic.errors import LaconicError
from laconic.transport import packets
from laconic.transport.meter import SocketMeter
from laconic.transport.packets import Kind, Packet, Publish, Splitter

_PACKET_LIMIT_BYTES: Final = 2**20
"""The longest packet that is taken: sixteen times the longest chunk."""

REFUSALS: Final = {
    1: "unacceptable protocol version",
    2: "identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}
"""MQTT 3.1.1, section 3.2.2.3."""


class Connection(asyncio.Protocol):
    """From the TCP connection to its end; there is a new one for each attempt.

    At most `window` messages of QoS 1 are under way at once, the others wait their turn: some brokers hang up
    on more.
    """

    def __init__(
        self,
        hello: bytes,
        *,
        window: int,
        meter: SocketMeter,
        on_up: Callable[[], None],
        on_message: Callable[[Publish], None],
        on_lost: Callable[[str, bool], None],
    ) -> None:
        """`hello`: the CONNECT packet; `on_lost` is told why, and whether the broker refused."""
        self._hello, self._window, self._meter = hello, window, meter
        self._on_up, self._on_message, self._on_lost = on_up, on_message, on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._splitter = Splitter(limit_bytes=_PACKET_LIMIT_BYTES)
        self._out: list[bytes] = []
        self._under_way: set[int] = set()
        self._waiting: deque[tuple[str, bytes, bool]] = deque()
        self._identifier = 0
        self._why, self._refused = "", False
        self._paused = False
        self.up = False
        self.heard_at = self.spoke_at = self._loop.time()
        self.closed = self._loop.create_future()

    # --- out

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Send a message, or put it behind those that wait."""
        if not qos:
            self._write(packets.publish(topic, payload, retain=retain))
        elif self._waiting or len(self._under_way) >= self._window:
            self._waiting.append((topic, payload, retain))
        else:
            self._publish(topic, payload, retain)

    def subscribe(self, filters: tuple[str, ...]) -> None:
        """Subscribe at QoS 1."""
        self._write(packets.subscribe(filters, self._next_identifier()))

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        """Give up subscriptions."""
        self._write(packets.unsubscribe(filters, self._next_identifier()))

    def acknowledge(self, identifier: int) -> None:
        """A message has been dealt with."""
        self._write(packets.acknowledge(identifier))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._write(packets.PING)

    def hang_up(self, last: bytes = b"") -> None:
        """Say goodbye after `last`; what waits is dropped."""
        self._write(last + packets.DISCONNECT)
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self, why: str) -> None:
        """Break the connection."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more for now: the broker keeps what is to come."""
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self.heard_at = self._loop.time()
            self._transport.resume_reading()

    @property
    def silent_s(self) -> float:
        """How long nothing has been heard; 0 while nobody listens."""
        return 0.0 if self._paused else self._loop.time() - self.heard_at

    @property
    def mute_s(self) -> float:
        """How long nothing has been said."""
        return self._loop.time() - self.spoke_at

    def _publish(self, topic: str, payload: bytes, retain: bool) -> None:
        identifier = self._next_identifier()
        self._under_way.add(identifier)
        self._write(packets.publish(topic, payload, retain=retain, identifier=identifier))

    def _next_identifier(self) -> int:
        while True:
            self._identifier = self._identifier % packets.MAX_IDENTIFIER + 1
            if self._identifier not in self._under_way:
                return self._identifier

    def _write(self, data: bytes) -> None:
        # What one turn of the loop has to say goes out in one piece.
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
            self.spoke_at = self._loop.time()
        self._out.clear()

    # --- asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._meter.attach(transport.get_extra_info("socket"))
        self.heard_at = self._loop.time()
        self._write(self._hello)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        try:
            for packet in self._splitter.feed(data):
                self._take(packet)
        except LaconicError as e:
            self.abort(str(e))

    def connection_lost(self, exc: Exception | None) -> None:
        self._meter.detach()
        self.up = False
        self._out.clear()
        self._waiting.clear()
        if not self.closed.done():
            self.closed.set_result(None)
        self._on_lost(self._why or str(exc or "closed by the broker"), self._refused)

    def _take(self, packet: Packet) -> None:
        match packet.kind:
            case Kind.PUBLISH:
                self._on_message(packets.message_of(packet))
            case Kind.PUBACK:
                self._under_way.discard(packets.identifier_of(packet))
                while self._waiting and len(self._under_way) < self._window:
                    self._publish(*self._waiting.popleft())
            case Kind.CONNACK if reason := packets.refusal(packet):
                self._refused = True
                self.abort(f"refused by the broker: {REFUSALS.get(reason, reason)}")
            case Kind.CONNACK:
                self.up = True
                self._on_up()
