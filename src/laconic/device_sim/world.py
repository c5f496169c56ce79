"""Runs Nodes under a virtual clock. See `laconic.node` for the contract that it keeps.

Everything that happens is an entry in one queue, ordered by time, then wakes before messages, then order of
arrival: the same nodes, links and seeds give the same trace, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from math import inf

from laconic.device_sim import chance
from laconic.device_sim.body import Body
from laconic.device_sim.clock import EVENT, WAKE, Clock
from laconic.device_sim.computing import Failures, Speed
from laconic.device_sim.garbage import rare_collections
from laconic.device_sim.host import Host
from laconic.device_sim.links import Connection
from laconic.device_sim.network import Network
from laconic.device_sim.signals import Signal
from laconic.device_sim.topics import IndexedBroker
from laconic.device_sim.upkeep import Upkeep
from laconic.device_sim.wire import Bytes
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

__all__ = ["Connection", "Speed", "World"]

_PACKET_BYTES = 9
"""Fixed header, topic length, packet identifier, and the acknowledgement's share, roughly."""


class World:
    """Hosts around one broker."""

    def __init__(
        self,
        *,
        restart_s: float = 1.0,
        reconnect_s: float = 0.5,
        seed: int = 0,
        tracing: bool = True,
        awake: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        """A host that crashes is back after `restart_s`, and connects `reconnect_s` after that.

        `seed` is of what happens to hosts by chance; `tracing`: whether `trace` tells of every event.
        `awake`: how many processes stay as they are, the others being put away as bytes until something
        happens to them; None: all. `executor`: does hosts' computations from when they begin, so that several
        go on at once; None: each at its beginning. What happens is the same.
        """
        self.trace: list[str] = []
        self.notes: list[tuple[float, str, Note]] = []
        self.broker: Broker | IndexedBroker = IndexedBroker()
        self._restart_s, self._reconnect_s = restart_s, reconnect_s
        self._seed, self._tracing = seed, tracing
        self._hosts: dict[str, Host] = {}
        self._awake = awake
        self._executor = executor
        self._recent: dict[str, None] = {}
        """Processes that have not been put away, the one to which something has happened last at the end."""
        self._clock = Clock()
        self._upkeep = Upkeep(self._clock, self)
        self._network = Network(self._clock, self._upkeep.began)

    @property
    def now(self) -> float:
        """Seconds of virtual time."""
        return self._clock.now

    @now.setter
    def now(self, time_s: float) -> None:
        """A world may begin later than at 0."""
        self._clock.now = time_s

    @property
    def events(self) -> int:
        """How many things have happened."""
        return self._clock.events

    def add(
        self,
        name: str,
        make: Callable[[], Node],
        *,
        connection: Connection | None = None,
        speed: Speed | None = None,
        start_s: float = 0.0,
        body: Body | None = None,
        presence: Signal | None = None,
        failures: Failures | None = None,
    ) -> MemoryStore:
        """A host whose process is made by `make`, once for each life; returns its disk.

        `body`: its energy, None for a host that nobody accounts for. `presence`: above 0 while its owner lets
        it run; whenever that ends, so does the process.
        """
        if name in self._hosts:
            raise ConfigError("host's name", value=name, remedy="each host needs its own")
        store = MemoryStore()
        key = chance.key(self._seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
        host = self._hosts[name] = Host(
            name,
            make,
            connection or Connection(),
            speed or Speed(),
            key,
            body=body,
            presence=presence,
            failures=failures,
            store=store,
        )
        self.at(start_s, lambda: self._begin(host))
        return store

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do something at a moment of virtual time."""
        self._push(time_s, EVENT, action)

    def crash_at_effect(self, name: str, count: int) -> None:
        """Kill `name`'s process when it has carried out `count` effects in all its lives, before the next."""
        self._hosts[name].crash_at_effect = count

    def effects_of(self, name: str) -> int:
        """How many effects a host has carried out."""
        return self._hosts[name].effects

    def node(self, name: str) -> Node | None:
        """A host's node, while its process lives."""
        return self._hosts[name].node

    def host(self, name: str) -> Host:
        """What the world knows of a host: to read, not to change."""
        return self._hosts[name]

    def bytes_of(self, name: str) -> tuple[int, int]:
        """Bytes that a host has sent and received."""
        host = self._hosts[name]
        return host.bytes_up, host.bytes_down

    def settle(self) -> None:
        """Bring every host's energy up to now: it is integrated from event to event."""
        now = self.now
        for host in self._hosts.values():
            if host.body is not None:
                host.body.advance(now)

    def crash(self, name: str) -> None:
        """Kill `name`'s process now; its disk stays."""
        self._die(self._hosts[name])

    def leave(self, name: str) -> None:
        """End `name`'s process as a signal does: it says goodbye, with what its will would have said."""
        host = self._hosts[name]
        if host.linked and host.node is not None:
            will, wire = host.node.will, host.connection.wire
            if wire is not None:
                self._network.up(host, wire.leave(will), lambda: None)
            self.broker.disconnect(name, politely=True)
            if will is not None:
                self._deliver(self.broker.publish(will.topic, will.payload, retain=will.retain), qos=0)
        self.end(host, "left", None)

    def cut(self, name: str, for_s: float) -> None:
        """Take `name`'s link away for a while; its process goes on."""
        host = self._hosts[name]
        if host.linked:
            self._unlink(host)
            life = host.life
            self.at(self.now + for_s, lambda: self._link(host, life))

    def run(self, until_s: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until `until_s`, or until `stop()` is true, or until nothing is left to happen."""
        with rare_collections():
            self._clock.run(until_s, stop)

    # --- hosts

    def _begin(self, host: Host) -> None:
        if host.body is not None or host.presence is not None:
            self._upkeep.follow(host)
        self.start(host)

    def start(self, host: Host) -> None:
        """Start a host's process, unless it runs or may not run now."""
        if not host.runs and host.may_run and self.now >= host.away_until and self._upkeep.present(host):
            self._boot(host)

    def end(self, host: Host, why: str, back_s: float | None) -> None:
        """End a host's process if it runs; it starts again after `back_s`, or when somebody starts it."""
        if not host.runs:
            return
        host.process = None
        self._recent.pop(host.name, None)
        host.life += 1
        host.wake_queued = None
        self._tell(f"{self.now:.6f} {host.name} {why}")
        if host.linked:
            self._unlink(host)
        if host.body is not None:
            host.body.advance(self.now)
            host.body.stop()
        if back_s is not None:
            host.away_until = self.now + back_s
            self.at(host.away_until, lambda: self.start(host))

    def _boot(self, host: Host) -> None:
        if host.body is not None:
            # What the new process reads of itself begins here.
            host.body.advance(self.now)
        host.process = host.make()
        self._feed(host, Started(host.store))
        life = host.life
        self.at(self.now + self._reconnect_s, lambda: self._link(host, life))

    def _link(self, host: Host, life: int) -> None:
        node, outage = host.node, host.connection.outage
        if host.life != life or node is None or host.linked:
            return
        if outage is not None:
            out, until = outage.at(self.now)
            if out > 0:
                self.at(until, lambda: self._link(host, life))
                return
        host.link += 1
        link, wire = host.link, host.connection.wire
        size = wire.connect(host.name, node.will) if wire else None

        def linked() -> None:
            if host.life == life and host.link == link and not host.linked:
                host.linked = True
                self.broker.connect(host.name, node.will)
                self._network.keep_alive(host)
                self._mind_outage(host)
                self._feed(host, Connected())

        self._network.connect(host, size, linked)

    def _mind_outage(self, host: Host) -> None:
        outage, link = host.connection.outage, host.link
        if outage is None:
            return
        _, until = outage.at(self.now)

        def turn() -> None:
            if host.link != link or not host.linked:
                return
            if outage.at(self.now)[0] > 0:
                self._unlink(host)
                self._link(host, host.life)
            else:
                self._mind_outage(host)

        if until < inf:
            self.at(until, turn)

    def _unlink(self, host: Host) -> None:
        host.linked = False
        host.link += 1
        self._network.broken(host)
        self._deliver(self.broker.disconnect(host.name, politely=False))

    def _die(self, host: Host) -> None:
        self.end(host, "crashed", self._restart_s)

    def _feed(self, host: Host, event: Event) -> None:
        node, life = host.node, host.life
        assert node is not None
        if self._tracing:
            self._tell(f"{self.now:.6f} {host.name} {_describe(event)}")
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
        if self._awake is not None:
            self._recent.pop(host.name, None)
            self._recent[host.name] = None
            if len(self._recent) > self._awake:
                oldest = next(iter(self._recent))
                del self._recent[oldest]
                self._hosts[oldest].park()

    def _queue_wake(self, host: Host) -> None:
        node = host.node
        assert node is not None
        wake_at = node.wake_at
        if wake_at is None or wake_at == host.wake_queued:
            return
        host.wake_queued, life = wake_at, host.life

        def wake() -> None:
            if host.life != life or host.wake_queued != wake_at or (node := host.node) is None:
                return
            host.wake_queued = None
            if node.wake_at != wake_at:
                self._queue_wake(host)
                return
            self._feed(host, Woke())
            if host.life == life and node.wake_at is not None and node.wake_at <= wake_at:
                raise LocalProtocolError(
                    "wake time after a wake", value=node.wake_at, limit=f"later than {wake_at}"
                )

        self._push(max(self.now, wake_at), WAKE, wake)

    # --- effects

    def _apply(self, host: Host, effect: Effect) -> None:
        wire = host.connection.wire
        match effect:
            case Send(topic, payload, qos, retain):

                def publish() -> None:
                    self._deliver(self.broker.publish(topic, payload, retain=retain), qos=qos)

                if wire is None:
                    self._transmit(host, len(topic) + len(payload), publish)
                else:
                    self._carry(host, wire.publish(topic, len(payload), qos=qos), publish)
            case Subscribe(filters):

                def subscribe() -> None:
                    self._deliver(self.broker.subscribe(host.name, filters))

                if wire is None:
                    self._transmit(host, sum(map(len, filters)), subscribe)
                else:
                    self._carry(host, wire.subscribe(filters), subscribe)
            case Unsubscribe(filters):

                def unsubscribe() -> None:
                    self.broker.unsubscribe(host.name, filters)

                if wire is None:
                    self._transmit(host, sum(map(len, filters)), unsubscribe)
                else:
                    self._carry(host, wire.unsubscribe(filters), unsubscribe)
            case Save(entries):
                host.store.write(entries)
            case Compute():
                self._compute(host, effect)
            case Note():
                self.notes.append((self.now, host.name, effect))

    def _transmit(self, host: Host, size: int, arrive: Callable[[], object]) -> None:
        """Over the host's uplink, one after the other; what is under way when the link breaks is lost."""
        self._carry(host, Bytes(size + _PACKET_BYTES, 0), arrive)

    def _carry(self, host: Host, size: Bytes, arrive: Callable[[], object]) -> None:
        if not host.linked:
            return
        link = host.link

        def arrived() -> None:
            if host.link == link and host.linked:
                arrive()

        self._network.up(host, size, arrived)

    def _deliver(self, deliveries: list[Delivery], *, qos: int = 1) -> None:
        for d in deliveries:
            self._receive(self._hosts[d.client], d, qos)

    def _receive(self, host: Host, d: Delivery, qos: int = 1) -> None:
        wire = host.connection.wire
        size = Bytes(len(d.topic) + len(d.payload) + _PACKET_BYTES, 0)
        if wire is not None:
            size = wire.publish(d.topic, len(d.payload), qos=qos)
        link = host.link

        def arrived() -> None:
            if host.link == link and host.linked:
                self._feed(host, Received(d.topic, d.payload))

        self._network.down(host, size, arrived)

    def _compute(self, host: Host, effect: Compute) -> None:
        seconds = host.speed.job_s + effect.samples * host.speed.sample_s
        if host.failures is not None:
            seconds *= host.failures.slow
        result = self._begun(effect.run)
        life = host.life
        if host.body is not None:
            host.body.advance(self.now)
            host.body.begin_job()
            self._upkeep.began(host)
        host.jobs += 1
        self._upkeep.fails(host, seconds)

        def computed() -> None:
            if host.life == life:
                if host.body is not None:
                    host.body.advance(self.now)
                    if not host.body.on:
                        # Empty at this very moment: its process is about to end.
                        return
                    host.body.end_job()
                self._feed(host, Computed(effect.job, result(), seconds))

        self._push(self.now + seconds, EVENT, computed)

    def _begun(self, run: Callable[[], object]) -> Callable[[], object]:
        """Begin a computation; its result, or error, is there when it is asked for."""
        if self._executor is not None:
            return self._executor.submit(_outcome, run).result
        found = _outcome(run)
        return lambda: found

    def _push(self, time_s: float, priority: int, action: Callable[[], None]) -> None:
        self._clock.push(time_s, priority, action)

    def _tell(self, line: str) -> None:
        if self._tracing:
            self.trace.append(line)


def _outcome(run: Callable[[], object]) -> object:
    try:
        return run()
    except Exception as e:
        return e
    except BaseException as e:
        # As the real driver has it.
        return RuntimeError(f"{type(e).__name__}: {e}")


def _describe(event: Event) -> str:
    match event:
        case Received(topic, payload):
            return f"received {topic} {len(payload)} {hashlib.sha256(payload).hexdigest()[:12]}"
        case Computed(job, result, _):
            return f"computed {job} {type(result).__name__}"
        case _:
            return type(event).__name__.lower()
