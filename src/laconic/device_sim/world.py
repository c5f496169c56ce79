"""Runs Nodes under a virtual clock. See `laconic.node` for the contract that it keeps.

Everything that happens is an entry in one queue, ordered by time, then wakes before messages, then order of
arrival: the same nodes, links and seeds give the same trace, byte for byte.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from laconic.errors import ConfigError, LocalProtocolError
from laconic.node import (
    Compute,
    Computed,
    Connected,
    Effect,
    Event,
    Node,
    Note,
    Received,
    Save,
    Send,
    Started,
    Subscribe,
    Unsubscribe,
    Woke,
)
from laconic.storage import MemoryStore
from laconic.transport.broker import Broker, Delivery

_WAKE: Final = 0
_EVENT: Final = 1
_PACKET_BYTES: Final = 9
"""Fixed header, topic length, packet identifier, and the acknowledgement's share, roughly."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A host's link to the broker: one way each."""

    latency_s: float = 0.05
    up_bytes_per_s: float = 1e6
    down_bytes_per_s: float = 1e6


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a host computes: seconds for a job = `job_s` + samples x `sample_s`."""

    job_s: float = 0.01
    sample_s: float = 1e-4


@dataclass
class _Host:
    name: str
    make: Callable[[], Node]
    connection: Connection
    speed: Speed
    store: MemoryStore = field(default_factory=MemoryStore)
    node: Node | None = None
    life: int = 0
    linked: bool = False
    up_free_at: float = 0.0
    down_free_at: float = 0.0
    wake_queued: float | None = None
    effects: int = 0
    crash_at_effect: int | None = None
    bytes_up: int = 0
    bytes_down: int = 0


class World:
    """Hosts around one broker."""

    def __init__(self, *, restart_s: float = 1.0, reconnect_s: float = 0.5) -> None:
        """A host that crashes is back after `restart_s`, and connects `reconnect_s` after that."""
        self.now = 0.0
        self.trace: list[str] = []
        self.notes: list[tuple[float, str, Note]] = []
        self.broker = Broker()
        self._restart_s, self._reconnect_s = restart_s, reconnect_s
        self._hosts: dict[str, _Host] = {}
        self._queue: list[tuple[float, int, int, Callable[[], None]]] = []
        self._sequence = 0

    def add(
        self,
        name: str,
        make: Callable[[], Node],
        *,
        connection: Connection | None = None,
        speed: Speed | None = None,
        start_s: float = 0.0,
    ) -> MemoryStore:
        """A host whose process is made by `make`, once for each life; returns its disk."""
        if name in self._hosts:
            raise ConfigError("host's name", value=name, remedy="each host needs its own")
        host = self._hosts[name] = _Host(name, make, connection or Connection(), speed or Speed())
        self.at(start_s, lambda: self._boot(host))
        return host.store

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do something at a moment of virtual time."""
        self._push(time_s, _EVENT, action)

    def crash_at_effect(self, name: str, count: int) -> None:
        """Kill `name`'s process when it has carried out `count` effects in all its lives, before the next."""
        self._hosts[name].crash_at_effect = count

    def effects_of(self, name: str) -> int:
        """How many effects a host has carried out."""
        return self._hosts[name].effects

    def node(self, name: str) -> Node | None:
        """A host's node, while its process lives."""
        return self._hosts[name].node

    def bytes_of(self, name: str) -> tuple[int, int]:
        """Bytes that a host has sent and received."""
        host = self._hosts[name]
        return host.bytes_up, host.bytes_down

    def crash(self, name: str) -> None:
        """Kill `name`'s process now; its disk stays."""
        self._die(self._hosts[name])

    def cut(self, name: str, for_s: float) -> None:
        """Take `name`'s link away for a while; its process goes on."""
        host = self._hosts[name]
        if host.linked:
            host.linked = False
            self._deliver(self.broker.disconnect(name, politely=False))
            life = host.life
            self.at(self.now + for_s, lambda: self._link(host, life))

    def run(self, until_s: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until `until_s`, or until `stop()` is true, or until nothing is left to happen."""
        while self._queue and self._queue[0][0] <= until_s and not stop():
            time_s, _, _, action = heapq.heappop(self._queue)
            self.now = max(self.now, time_s)
            action()

    # --- hosts

    def _boot(self, host: _Host) -> None:
        host.node = host.make()
        self._feed(host, Started(host.store))
        life = host.life
        self._push(self.now + self._reconnect_s, _EVENT, lambda: self._link(host, life))

    def _link(self, host: _Host, life: int) -> None:
        if host.life == life and host.node is not None and not host.linked:
            host.linked = True
            host.up_free_at = host.down_free_at = self.now
            self.broker.connect(host.name, host.node.will)
            self._feed(host, Connected())

    def _die(self, host: _Host) -> None:
        if host.node is None:
            return
        host.node = None
        host.life += 1
        host.wake_queued = None
        self.trace.append(f"{self.now:.6f} {host.name} crashed")
        if host.linked:
            host.linked = False
            self._deliver(self.broker.disconnect(host.name, politely=False))
        self._push(self.now + self._restart_s, _EVENT, lambda: self._boot(host))

    def _feed(self, host: _Host, event: Event) -> None:
        node, life = host.node, host.life
        assert node is not None
        self.trace.append(f"{self.now:.6f} {host.name} {_describe(event)}")
        for effect in node.handle(event, self.now):
            if host.crash_at_effect is not None and host.effects >= host.crash_at_effect:
                host.crash_at_effect = None
                self._die(host)
                return
            host.effects += 1
            self._apply(host, effect)
            if host.life != life:
                return
        self._queue_wake(host)

    def _queue_wake(self, host: _Host) -> None:
        assert host.node is not None
        wake_at = host.node.wake_at
        if wake_at is None or wake_at == host.wake_queued:
            return
        host.wake_queued, life = wake_at, host.life

        def wake() -> None:
            if host.life != life or host.node is None or host.wake_queued != wake_at:
                return
            host.wake_queued = None
            if host.node.wake_at != wake_at:
                self._queue_wake(host)
                return
            self._feed(host, Woke())
            if host.node is not None and host.node.wake_at is not None and host.node.wake_at <= wake_at:
                raise LocalProtocolError(
                    "wake time after a wake", value=host.node.wake_at, limit=f"later than {wake_at}"
                )

        self._push(max(self.now, wake_at), _WAKE, wake)

    # --- effects

    def _apply(self, host: _Host, effect: Effect) -> None:
        match effect:
            case Send(topic, payload, _, retain):
                self._transmit(host, len(topic) + len(payload), lambda: self._publish(topic, payload, retain))
            case Subscribe(filters):
                self._transmit(
                    host,
                    sum(map(len, filters)),
                    lambda: self._deliver(self.broker.subscribe(host.name, filters)),
                )
            case Unsubscribe(filters):
                self._transmit(
                    host, sum(map(len, filters)), lambda: self.broker.unsubscribe(host.name, filters)
                )
            case Save(entries):
                host.store.write(entries)
            case Compute():
                self._compute(host, effect)
            case Note():
                self.notes.append((self.now, host.name, effect))

    def _transmit(self, host: _Host, size: int, arrive: Callable[[], object]) -> None:
        """Over the host's uplink, one after the other; what is under way when the link breaks is lost."""
        if not host.linked:
            return
        size += _PACKET_BYTES
        host.bytes_up += size
        host.up_free_at = max(self.now, host.up_free_at) + size / host.connection.up_bytes_per_s
        life = host.life

        def arrived() -> None:
            if host.life == life and host.linked:
                arrive()

        self._push(host.up_free_at + host.connection.latency_s, _EVENT, arrived)

    def _publish(self, topic: str, payload: bytes, retain: bool) -> None:
        self._deliver(self.broker.publish(topic, payload, retain=retain))

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for d in deliveries:
            self._receive(self._hosts[d.client], d)

    def _receive(self, host: _Host, d: Delivery) -> None:
        size = len(d.topic) + len(d.payload) + _PACKET_BYTES
        host.bytes_down += size
        host.down_free_at = max(self.now, host.down_free_at) + size / host.connection.down_bytes_per_s
        life = host.life

        def arrived() -> None:
            if host.life == life and host.linked:
                self._feed(host, Received(d.topic, d.payload))

        self._push(host.down_free_at + host.connection.latency_s, _EVENT, arrived)

    def _compute(self, host: _Host, effect: Compute) -> None:
        seconds = host.speed.job_s + effect.samples * host.speed.sample_s
        try:
            result: object = effect.run()
        except Exception as e:
            result = e
        life = host.life

        def computed() -> None:
            if host.life == life:
                self._feed(host, Computed(effect.job, result, seconds))

        self._push(self.now + seconds, _EVENT, computed)

    def _push(self, time_s: float, priority: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (time_s, priority, self._sequence, action))


def _describe(event: Event) -> str:
    match event:
        case Received(topic, payload):
            return f"received {topic} {len(payload)} {hashlib.sha256(payload).hexdigest()[:12]}"
        case Computed(job, result, _):
            return f"computed {job} {type(result).__name__}"
        case _:
            return type(event).__name__.lower()
