"""Ten thousand devices in one process: a small MQTT 3.1.1 client, many times, on one epoll.

The devices do not train. They connect, say that they are here, wait for the offer, send an update that was
encoded before within its promise, repeat that bare until they are answered, and send what they are told is
missing.
Everything on the wire is what a device says; only what is decoded of the coordinator's words is real work.
"""

from __future__ import annotations

import hashlib
import resource
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from laconic.errors import LimitExceeded, TransportError
from laconic.protocol import topics
from laconic.protocol.identity import update_id
from laconic.protocol.messages import MESSAGE_LIMIT_BYTES, Ack, Fate, Fin, Offer, State, decode, encode

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
_CONNECTING = 256
"""Connections under way at a time: a listener's queue is short."""
_RETRY_S, _RETRY_MOST_S = 10.0, 300.0
"""How long a device waits for an answer before it repeats its promise; twice as long each time."""

CHUNK, FIN, BIRTH = 1, 2, 3
"""Packet identifiers: a device has no more in flight."""


@dataclass(frozen=True)
class Sent:
    """What came of a run: seconds since the first publish, one entry a device where there is a list."""

    first_at: float
    """On the clock of `time.monotonic`, which processes share."""
    seconds: float
    """Until the last device was told `committed`; where nobody answers, until the last was on its way."""
    answer_s: list[float]
    """From the promise on the wire to `committed`."""
    repeated: int
    """Promises that were made again, because of silence or missing chunks."""
    rejected: int


@dataclass
class _Client:
    name: str
    sock: socket.socket
    out: bytearray = field(default_factory=bytearray)
    into: bytearray = field(default_factory=bytearray)
    ready: int = 0
    """What it has been told: connected, subscribed, birth taken."""
    frame: bytes = b""
    update: str = ""
    fin: bytes = b""
    full: bytes = b""
    """The promise with the frame in it."""
    promised_at: float = 0.0
    repeated_at: float = 0.0
    patience_s: float = _RETRY_S
    answered: bool = False


class Swarm:
    """Devices of one cohort on a broker at 127.0.0.1."""

    def __init__(self, port: int, count: int, *, cohort: str = "default", weight: int = 100) -> None:
        """Raises `TransportError` where the system allows fewer sockets."""
        raise_limit(count + 64)
        self._port, self._cohort, self._weight = port, cohort, weight
        self._poll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._names = deque(f"d{i:05d}" for i in range(count))
        self._count = count
        self.offer: Offer | None = None
        self._answer_s: list[float] = []
        self._pending = self._known = self._here = 0
        self._repeated = self._rejected = 0

    def connect(self, seconds: float = 120.0) -> None:
        """Connect all, subscribe, and tell the births; returns when the broker has taken everything."""
        deadline = time.monotonic() + seconds
        while self._here < self._count:
            while self._names and len(self._clients) - self._known < _CONNECTING:
                self._begin(self._names.popleft())
            self._turn(0.1)
            if time.monotonic() > deadline:
                raise TransportError(f"devices connected within {seconds} s", value=self._count)

    def wait_for_offer(self, seconds: float = 60.0) -> Offer:
        """The task that the coordinator offers to the cohort."""
        deadline = time.monotonic() + seconds
        while self.offer is None or not self.offer.work:
            self._turn(0.1)
            if time.monotonic() > deadline:
                raise TransportError(f"offer within {seconds} s", value="none")
        return self.offer

    def send(
        self,
        frames: Sequence[bytes],
        task: str,
        base: str,
        *,
        rate: float | None = None,
        answered: bool = True,
        over: Callable[[], bool] = lambda: False,
        seconds: float = 200.0,
    ) -> Sent:
        """Every device sends one of `frames`, all as fast as they can or `rate` devices a second.

        Returns when all have been `answered`, or when `over()`, or after `seconds`.
        """
        self._prepare(frames, task, base)
        waiting = deque(self._clients.values())
        self._pending, self._answer_s = len(waiting), []
        self._repeated = self._rejected = 0
        first = time.monotonic()
        look = first + 1.0
        while (self._pending if answered else waiting) or not (answered or over()):
            now = time.monotonic()
            if now > first + seconds:
                break
            due = (
                len(waiting) if rate is None else int((now - first) * rate) + 1 - (self._count - len(waiting))
            )
            for _ in range(min(due, len(waiting), 100)):
                self._say(waiting.popleft())
            if answered and now > look:
                self._repeat(now)
                look = now + 1.0
            self._turn(0.0 if due > 0 and waiting else 0.001)
        ended = max((c.promised_at + s for c, s in self._answers()), default=time.monotonic())
        return Sent(first, ended - first, [s for _, s in self._answers()], self._repeated, self._rejected)

    def close(self) -> None:
        """Hang up, rudely."""
        for client in self._clients.values():
            client.sock.close()
        self._poll.close()

    # --- one device

    def _begin(self, name: str) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex(("127.0.0.1", self._port))
        client = self._clients[sock.fileno()] = _Client(name, sock)
        identity = _text(name)
        # Protocol level 4, a clean session, no keep-alive: nobody here is ever silent for long.
        self._queue(client, _packet(_CONNECT, _text("MQTT") + b"\x04\x02\x00\x00" + identity))
        self._poll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _connected(self, client: _Client) -> None:
        client.ready = 1
        self._known += 1
        filters = (topics.ack(client.name), topics.device_task(client.name), topics.cohort_task(self._cohort))
        wanted = b"".join(_text(f) + b"\x01" for f in filters)
        birth = encode(State(True, cohort=self._cohort, samples=self._weight))
        self._queue(
            client,
            _packet(_SUBSCRIBE, b"\x00\x01" + wanted)
            + _publish(topics.state(client.name), birth, BIRTH, retain=True),
        )

    def _begun(self, client: _Client) -> None:
        client.ready += 1
        self._here += client.ready == 3

    def _prepare(self, frames: Sequence[bytes], task: str, base: str) -> None:
        digests = [hashlib.sha256(f).digest() for f in frames]
        for i, client in enumerate(self._clients.values()):
            frame, digest = frames[i % len(frames)], digests[i % len(frames)]
            client.frame, client.answered = frame, False
            client.update = update_id(client.name, task, base, digest)
            fin = Fin(task, base, len(frame), 1, digest, self._weight)
            client.fin, client.full = encode(fin), encode(msgspec.structs.replace(fin, frame=frame))
            if len(client.full) > MESSAGE_LIMIT_BYTES:
                raise LimitExceeded(
                    "update in one message", value=len(client.full), limit=MESSAGE_LIMIT_BYTES
                )

    def _say(self, client: _Client) -> None:
        client.promised_at = client.repeated_at = time.monotonic()
        self._queue(client, self._promise(client, client.full))

    def _promise(self, client: _Client, fin: bytes) -> bytes:
        return _publish(topics.update_fin(client.name, client.update), fin, FIN)

    def _repeat(self, now: float) -> None:
        for client in self._clients.values():
            if client.promised_at and not client.answered and now > client.repeated_at + client.patience_s:
                client.repeated_at = now
                client.patience_s = min(2 * client.patience_s, _RETRY_MOST_S)
                self._repeated += 1
                self._queue(client, self._promise(client, client.fin))

    def _heard(self, client: _Client, topic: str, payload: bytes) -> None:
        if topic == topics.ack(client.name):
            ack = decode(Ack, payload)
            if ack.update != client.update or client.answered:
                return
            if ack.fate is Fate.MISSING:
                self._repeated += 1
                chunk = _publish(topics.update_chunk(client.name, client.update, 0), client.frame, CHUNK)
                self._queue(client, chunk + self._promise(client, client.fin))
                return
            client.answered = True
            self._pending -= 1
            self._rejected += ack.fate is Fate.REJECTED
            client.repeated_at = time.monotonic()
        elif payload and self.offer is None:
            self.offer = decode(Offer, payload)

    def _answers(self) -> list[tuple[_Client, float]]:
        told = [c for c in self._clients.values() if c.answered]
        return [(c, c.repeated_at - c.promised_at) for c in told]

    # --- sockets

    def _queue(self, client: _Client, data: bytes) -> None:
        if not client.out:
            try:
                sent = client.sock.send(data)
            except (BlockingIOError, OSError):
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            if client.ready:
                self._poll.modify(client.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
        client.out += data

    def _turn(self, timeout: float) -> None:
        for fd, events in self._poll.poll(timeout, 1024):
            client = self._clients[fd]
            if events & select.EPOLLOUT:
                self._flush(client)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(client)

    def _flush(self, client: _Client) -> None:
        if client.out:
            try:
                del client.out[: client.sock.send(client.out)]
            except BlockingIOError:
                return
        if not client.out:
            self._poll.modify(client.sock.fileno(), select.EPOLLIN)

    def _read(self, client: _Client) -> None:
        try:
            data = client.sock.recv(65536)
        except BlockingIOError:
            return
        if not data:
            raise TransportError(f"connection of {client.name}", value="closed by the broker")
        client.into += data
        at = 0
        while (end := _end_of_packet(client.into, at)) is not None:
            start, stop = end
            self._take(client, client.into[at], bytes(client.into[start:stop]))
            at = stop
        del client.into[:at]

    def _take(self, client: _Client, head: int, body: bytes) -> None:
        match head & 0xF0:
            case 0x20:
                if body[1]:
                    raise TransportError(f"connection of {client.name}", value=f"refused with {body[1]}")
                self._connected(client)
            case 0x90:
                self._begun(client)
            case 0x40:
                if int.from_bytes(body, "big") == BIRTH:
                    self._begun(client)
            case 0x30:
                length = int.from_bytes(body[:2], "big")
                topic, at = body[2 : 2 + length].decode(), 2 + length
                if head & 0x06:
                    self._queue(client, b"\x40\x02" + body[at : at + 2])
                    at += 2
                self._heard(client, topic, body[at:])


def raise_limit(sockets: int) -> None:
    """Allow this process so many descriptors. Raises `TransportError` over the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if sockets > hard:
        raise TransportError("descriptors of a process", value=sockets, limit=hard, remedy="ulimit -Hn")
    if sockets > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _end_of_packet(data: bytearray, at: int) -> tuple[int, int] | None:
    """Where the body of the packet at `at` begins and ends, if all of it is there (MQTT 3.1.1, 2.2.3)."""
    length = shift = 0
    for i in range(at + 1, min(at + 5, len(data))):
        length |= (data[i] & 0x7F) << shift
        shift += 7
        if data[i] < 0x80:
            stop = i + 1 + length
            return (i + 1, stop) if stop <= len(data) else None
    return None


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


def _packet(head: int, body: bytes) -> bytes:
    length, size = len(body), bytearray()
    while True:
        length, low = length >> 7, length & 0x7F
        size.append(low | (0x80 if length else 0))
        if not length:
            return bytes([head]) + size + body


def _publish(topic: str, payload: bytes, mid: int, *, retain: bool = False) -> bytes:
    return _packet(_PUBLISH | 0x02 | retain, _text(topic) + struct.pack(">H", mid) + payload)
