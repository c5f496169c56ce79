"""Bytes that a message takes on its way: MQTT packets, TLS records, TCP and IP headers.

Above TCP they are counted as the kernel counts them for the real link (`laconic.transport.meter`), so that a
device's readings are the same; below, as a carrier bills them and a radio carries them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from laconic.errors import ConfigError
from laconic.node import Will
from laconic.profiles import profiles


class Tls(StrEnum):
    """How a connection is secured."""

    NONE = "none"
    SERVER = "server"
    MUTUAL = "mutual"
    RESUMED = "resumed"


class Bytes(NamedTuple):
    """Above TCP: the way that is meant, and the way back."""

    forth: int
    back: int


@dataclass(frozen=True, slots=True)
class Wire:
    """MQTT 3.1.1 over TCP, with TLS 1.3 or without. Each packet is taken to be a write of its own.

    `keep_alive_s`: a ping goes out when nothing has passed for three quarters of it; None: no pings.
    """

    tls: Tls = Tls.NONE
    keep_alive_s: float | None = 60.0

    def __post_init__(self) -> None:
        if self.keep_alive_s is not None and not 5 <= self.keep_alive_s <= 65_535:
            raise ConfigError("keep_alive_s", value=self.keep_alive_s, limit="5 to 65535, or none")

    def publish(self, topic: str, payload: int, *, qos: int = 1) -> Bytes:
        """A message and its acknowledgement (sections 3.3 and 3.4)."""
        rest = 2 + len(topic.encode()) + (2 if qos else 0) + payload
        return Bytes(self._written(rest), self.sealed(_constants().puback) if qos else 0)

    def subscribe(self, filters: Sequence[str]) -> Bytes:
        """A subscription and its acknowledgement, a byte for each filter (sections 3.8 and 3.9)."""
        rest = 2 + sum(3 + len(f.encode()) for f in filters)
        return Bytes(self._written(rest), self._written(2 + len(filters)))

    def unsubscribe(self, filters: Sequence[str]) -> Bytes:
        """The end of a subscription (sections 3.10 and 3.11)."""
        return Bytes(self._written(2 + sum(2 + len(f.encode()) for f in filters)), self._written(2))

    def connect(self, client: str, will: Will | None, *, username: str = "", password: int = 0) -> Bytes:
        """The handshake of TLS, and CONNECT with CONNACK (sections 3.1 and 3.2)."""
        rest = 10 + 2 + len(client.encode())
        if will is not None:
            rest += 4 + len(will.topic.encode()) + len(will.payload)
        if username:
            rest += 2 + len(username.encode()) + (2 + password if password else 0)
        up, down = _constants().handshakes[self.tls]
        return Bytes(up + self._written(rest), down + self._written(2))

    def leave(self, will: Will | None) -> Bytes:
        """DISCONNECT (section 3.14), behind the will as a message of QoS 0, in one write."""
        size = 2
        if will is not None:
            rest = 2 + len(will.topic.encode()) + len(will.payload)
            size += 1 + _digits(rest) + rest
        return Bytes(self.sealed(size), 0)

    def ping(self) -> Bytes:
        """A ping and its answer (sections 3.12 and 3.13)."""
        return Bytes(self.sealed(_constants().ping), self.sealed(_constants().ping))

    def round_trips(self) -> int:
        """How many it takes to connect: TCP, TLS 1.3 (RFC 8446, figure 1), MQTT."""
        return 2 if self.tls is Tls.NONE else 3

    def sealed(self, size: int) -> int:
        """Bytes as TLS records."""
        if self.tls is Tls.NONE:
            return size
        c = _constants()
        return size + c.record * -(-size // c.record_most)

    def _written(self, rest: int) -> int:
        """A packet whose remaining length is `rest` (section 2.2.3)."""
        return self.sealed(1 + _digits(rest) + rest)


def _digits(rest: int) -> int:
    """Bytes that tell a packet's remaining length (section 2.2.3)."""
    return 1 if rest < 128 else 2 if rest < 16_384 else 3 if rest < 2_097_152 else 4


def on_ip(size: int) -> tuple[int, int]:
    """Bytes of a write at the IP level, and of TCP's acknowledgements of it the other way.

    Headers on every segment; an acknowledgement for every second one (RFC 5681, section 4.2).
    """
    if not size:
        return 0, 0
    c = _constants()
    count = -(-size // c.segment)
    return size + c.header * count, c.header * -(-count // 2)


class _Constants(NamedTuple):
    header: int
    segment: int
    record: int
    record_most: int
    puback: int
    ping: int
    handshakes: dict[Tls, tuple[int, int]]


@lru_cache(1)
def _constants() -> _Constants:
    w = profiles().wire

    def pair(up: float, down: float) -> tuple[int, int]:
        return int(up), int(down)

    return _Constants(
        header=int(w.ip_tcp_header_bytes.value),
        segment=int(w.mss_bytes.value),
        record=int(w.tls_record_bytes.value),
        record_most=int(w.tls_record_most_bytes.value),
        puback=int(w.puback_bytes.value),
        ping=int(w.ping_bytes.value),
        handshakes={
            Tls.NONE: (0, 0),
            Tls.SERVER: pair(w.tls_full_up_bytes.value, w.tls_full_down_bytes.value),
            Tls.MUTUAL: pair(w.mtls_full_up_bytes.value, w.mtls_full_down_bytes.value),
            Tls.RESUMED: pair(w.tls_resumed_up_bytes.value, w.tls_resumed_down_bytes.value),
        },
    )
