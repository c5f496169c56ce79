"""MQTT 3.1.1 packets to bytes and back, without a socket (OASIS Standard, 29 October 2014)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from laconic.errors import LimitExceeded, Malformed
from laconic.node import Will

MAX_IDENTIFIER: Final = 65_535
PING: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"

_PUBLISH_QOS_1: Final = 0x32
_PUBLISH_QOS_0: Final = 0x30
_RETAIN: Final = 0x01


class Kind(IntEnum):
    """The kinds of packets that a broker sends (section 2.2.1)."""

    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBACK = 9
    UNSUBACK = 11
    PINGRESP = 13


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as it came; `flags` are the low four bits of its first byte."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Publish:
    """A message of the broker; `identifier` is 0 at QoS 0."""

    topic: str
    payload: bytes
    identifier: int


class Splitter:
    """Cuts what arrives into packets, whatever pieces it arrives in."""

    def __init__(self, *, limit_bytes: int) -> None:
        """`limit_bytes`: the longest packet that is taken."""
        self._limit_bytes = limit_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that `data` completes.

        Raises `LimitExceeded` or `Malformed` for a length that is too long; nothing can be read after that.
        """
        self._rest += data
        at = 0
        try:
            while (bounds := self._bounds(at)) is not None:
                start, stop = bounds
                first = self._rest[at]
                # By way of a view one copy is made, not two.
                body = bytes(memoryview(self._rest)[start:stop])
                at = stop
                yield Packet(first >> 4, first & 0x0F, body)
        finally:
            del self._rest[:at]

    def _bounds(self, at: int) -> tuple[int, int] | None:
        """Where the body of the packet at `at` begins and ends, if all of it is here (section 2.2.3)."""
        length = shift = 0
        for i in range(at + 1, min(at + 5, len(self._rest))):
            byte = self._rest[i]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if length > self._limit_bytes:
                    raise LimitExceeded("size of a packet", value=length, limit=self._limit_bytes)
                stop = i + 1 + length
                return (i + 1, stop) if stop <= len(self._rest) else None
        if shift == 28:
            raise Malformed("length of a packet", value="more than four bytes", limit="four bytes")
        return None


def connect(
    client_id: str,
    *,
    clean: bool,
    keep_alive_s: int,
    username: str | None = None,
    password: str | None = None,
    will: Will | None = None,
) -> bytes:
    """Ask for a session (section 3.1)."""
    flags, payload = 0x02 if clean else 0, _text(client_id)
    if will is not None:
        flags |= 0x04 | 0x01 << 3 | (0x20 if will.retain else 0)
        payload += _text(will.topic) + struct.pack(">H", len(will.payload)) + will.payload
    if username is not None:
        flags |= 0x80
        payload += _text(username)
        if password is not None:
            flags |= 0x40
            payload += _text(password)
    return _packet(0x10, _text("MQTT") + struct.pack(">BBH", 4, flags, keep_alive_s) + payload)


def publish(topic: str, payload: bytes, *, retain: bool, identifier: int = 0) -> bytes:
    """A message: at QoS 1 under an `identifier`, at QoS 0 without one (section 3.3)."""
    if identifier:
        head = _PUBLISH_QOS_1 | (_RETAIN if retain else 0)
        return _packet(head, b"".join((_text(topic), struct.pack(">H", identifier), payload)))
    return _packet(_PUBLISH_QOS_0 | (_RETAIN if retain else 0), _text(topic) + payload)


def acknowledge(identifier: int) -> bytes:
    """A message has been dealt with (section 3.4)."""
    return b"\x40\x02" + struct.pack(">H", identifier)


def subscribe(filters: Sequence[str], identifier: int) -> bytes:
    """Subscribe to each filter at QoS 1 (section 3.8)."""
    wanted = b"".join(_text(f) + b"\x01" for f in filters)
    return _packet(0x82, struct.pack(">H", identifier) + wanted)


def unsubscribe(filters: Sequence[str], identifier: int) -> bytes:
    """Give up subscriptions (section 3.10)."""
    return _packet(0xA2, struct.pack(">H", identifier) + b"".join(map(_text, filters)))


def raw(packet: Packet) -> bytes:
    """A packet as it goes over the wire."""
    return _packet(packet.kind << 4 | packet.flags, packet.body)


def refusal(packet: Packet) -> int:
    """Of a CONNACK: why the broker refuses, 0 if it does not (section 3.2.2.3). Raises `Malformed`."""
    if len(packet.body) != 2:
        raise Malformed("length of a CONNACK", value=len(packet.body), limit=2)
    return packet.body[1]


def identifier_of(packet: Packet) -> int:
    """Of a PUBACK: what it acknowledges. Raises `Malformed`."""
    if len(packet.body) != 2:
        raise Malformed("length of a PUBACK", value=len(packet.body), limit=2)
    return int.from_bytes(packet.body, "big")


def message_of(packet: Packet) -> Publish:
    """Of a PUBLISH: the message. A topic that is no UTF-8 is "".

    Raises `Malformed` for a body that is too short, and for QoS 2, which nobody has subscribed to.
    """
    body, qos = packet.body, packet.flags >> 1 & 0x03
    at = 2 + int.from_bytes(body[:2], "big")
    if qos > 1:
        raise Malformed("QoS of a message", value=qos, limit="0 or 1")
    if len(body) < at + 2 * qos:
        raise Malformed("length of a PUBLISH", value=len(body), limit=f"at least {at + 2 * qos}")
    try:
        topic = body[2:at].decode()
    except UnicodeDecodeError:
        topic = ""
    if not qos:
        return Publish(topic, body[at:], 0)
    return Publish(topic, body[at + 2 :], int.from_bytes(body[at : at + 2], "big"))


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


def _packet(head: int, body: bytes) -> bytes:
    length, size = len(body), bytearray((head,))
    while True:
        length, low = length >> 7, length & 0x7F
        size.append(low | (0x80 if length else 0))
        if not length:
            return bytes(size) + body
