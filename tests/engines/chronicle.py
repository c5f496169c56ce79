"""A world that writes down what was saved, and an oracle that finds from it what the models must be.

The oracle shares no bookkeeping with the engines: it reads the `Save` effects of the coordinator, folds the
updates of each round again in another order, and compares weights bit for bit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
from fleet import BUNDLE, SCHEMA, SIZE, Fleet, LinearLearner

from laconic.compression import decode, whole
from laconic.compression.echo import EchoSettings
from laconic.coordinator.advance import advance, first
from laconic.coordinator.campaign import Committed
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.fold import Fold
from laconic.coordinator.records import ModelRecord, Status
from laconic.device_sim.world import World
from laconic.edge_sdk.engine import DeviceEngine
from laconic.edge_sdk.learner import Interrupted, Learner, Trained
from laconic.edge_sdk.records import restore
from laconic.edge_sdk.work import Outcome
from laconic.node import Computed, Effect, Event, Save, Send, Subscribe
from laconic.protocol.identity import weights_hash
from laconic.protocol.messages import Training
from laconic.schema import Vector
from laconic.storage import MemoryStore
from laconic.transport.broker import Delivery

_OWN = "c/default/"
_UPDATE = _OWN + "update/"
_LATE = _OWN + "late/"

Host = Any
"""`laconic.device_sim.world` keeps its hosts to itself."""


@dataclass
class Chronicle:
    """What happened in one run."""

    saves: list[tuple[str, Mapping[str, bytes | None]]] = field(default_factory=list)
    changes: dict[str, list[Vector]] = field(default_factory=dict)
    """By device: the local changes that have reached its residual."""


class LoggedWorld(World):
    """A world with a chronicle, and with a network that may be worse than TCP allows.

    `survives`: what a process has sent before it was killed arrives. `repeat`: the share of deliveries that
    come a second time: chunks, promises and answers up to ten seconds later, presence and offers at once,
    since a broker keeps the order within a topic (MQTT 3.1.1, section 4.6) and there the last word counts.
    `lose` may swallow a delivery.
    """

    def __init__(self, *, survives: bool = False, repeat: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.chronicle = Chronicle()
        self.stores: dict[str, MemoryStore] = {}
        self.last_change: dict[str, Vector] = {}
        self.published: list[tuple[str, bytes]] = []
        self.asked: list[tuple[float, str, str]] = []
        """(when, host, filter) of every subscription."""
        self._survives, self._repeat = survives, repeat
        self._random = random.Random(seed)
        self._event: Event | None = None
        self._sending = False
        self.lose: Callable[[Delivery], bool] = lambda d: False

    def add(self, name: str, make: Callable[[], Any], **options: Any) -> MemoryStore:
        self.stores[name] = super().add(name, make, **options)
        return self.stores[name]

    def _feed(self, host: Host, event: Event) -> None:
        self._event = event
        super()._feed(host, event)

    def _apply(self, host: Host, effect: Effect) -> None:
        self._sending = isinstance(effect, Send)
        super()._apply(host, effect)
        if isinstance(effect, Send):
            self.published.append((effect.topic, effect.payload))
        if isinstance(effect, Subscribe):
            self.asked += [(self.now, host.name, f) for f in effect.filters]
        if isinstance(effect, Save):
            self.chronicle.saves.append((host.name, effect.entries))
            match self._event:
                case Computed("train", Outcome()) if (
                    "residual" in effect.entries and host.name in self.last_change
                ):
                    change = self.last_change[host.name]
                    self.chronicle.changes.setdefault(host.name, []).append(change)

    def _transmit(self, host: Host, size: int, arrive: Callable[[], object]) -> None:
        if not (self._survives and self._sending):
            super()._transmit(host, size, arrive)
        elif host.linked:
            host.bytes_up += size
            host.up_free_at = max(self.now, host.up_free_at) + size / host.connection.up_bytes_per_s
            self.at(host.up_free_at + host.connection.latency_s, lambda: arrive() and None)

    def _receive(self, host: Host, d: Delivery, qos: int = 1) -> None:
        if self.lose(d):
            return
        super()._receive(host, d, qos)
        if self._random.random() < self._repeat:
            state_or_offer = d.topic.endswith(("/state", "/task"))
            later = self.now + (0.0 if state_or_offer else 10 * self._random.random() ** 3)
            self.at(later, lambda: super(LoggedWorld, self)._receive(host, d, qos) if host.linked else None)


@dataclass
class LoggedLearner:
    """A `LinearLearner` that leaves its last change with the world."""

    world: LoggedWorld
    number: int
    inner: Learner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained | Interrupted:
        trained = self.inner.train(weights, training, seed, private, checkpoint)
        if isinstance(trained, Trained):
            self.world.last_change[f"d{self.number}"] = trained.weights - weights
        return trained


def logged(fleet: Fleet, **options: Any) -> LoggedWorld:
    """A logged world with the fleet in it."""
    world = LoggedWorld(**options)
    fleet.learner = lambda i: LoggedLearner(world, i, LinearLearner(i))  # type: ignore[assignment,return-value]
    fleet.world(world)
    return world


def settle(fleet: Fleet, world: World, *, until_s: float = 7200.0, rest_s: float = 700.0) -> None:
    """Run to the end of the campaign, then until the last answers and models have arrived."""
    fleet.run(world, until_s)
    world.run(world.now + rest_s)


def verify(fleet: Fleet, world: LoggedWorld, *, everyone: bool = True) -> int:
    """Hold a settled run against the oracle; returns how many updates reached the model.

    * The campaign has finished.
    * Every update was committed once, and is in exactly one version, or was dropped with one that was
      refused or taken back; those do not count as having reached the model.
    * Every version's weights are what its updates give, folded anew in another order.
    * Every device holds the newest version bit for bit (`everyone`), or some version bit for bit.
    * On every device: all changes made = committed updates (decoded) with their echoes so far + residual on
      its disk; and what is still to be added on its behalf is what it expects.
    """
    coordinator = world.node("coordinator")
    assert isinstance(coordinator, CoordinatorEngine)
    assert coordinator.finished
    sent: dict[str, list[_Sent]] = {f"d{i}": [] for i in range(fleet.devices)}
    versions = [first(np.zeros(SIZE, np.float32), SCHEMA, lambda w: None)]
    seen: set[str] = set()
    dropped: set[str] = set()
    waiting: dict[str, Committed] = {}
    echo = np.zeros(SIZE, np.float32)
    for host, entries in world.chronicle.saves:
        if host != "coordinator":
            continue
        for key, blob in entries.items():
            if key.startswith((_UPDATE, _LATE)) and blob is not None:
                c = msgspec.msgpack.decode(blob, type=Committed)
                late = key == f"{_LATE}{c.device}/{c.update}"
                assert late or key == _UPDATE + c.device
                # After a rollback the newest of those with the same weights.
                base = max(i for i, v in enumerate(versions) if v.digest.hex().startswith(c.base))
                assert c.staleness == len(versions) - 1 - base
                assert late or c.staleness == 0
                assert c.discount == np.float32((1 + c.staleness) ** -fleet.lateness.exponent)
                assert c.update not in seen, f"update {c.update} of {c.device} was committed twice"
                seen.add(c.update)
                waiting[key] = c
                frame = decode(c.frame, SCHEMA, limit_bytes=4 * SIZE)
                sent[c.device].append(_Sent(frame, len(versions) - 1, c.discount))
        records = [
            msgspec.msgpack.decode(blob, type=ModelRecord)
            for key, blob in entries.items()
            if key.startswith(_OWN + "model/") and blob is not None
        ]
        taken = {key for key, blob in entries.items() if _is_taken(key, blob)}
        for record in records:
            if record.version < len(versions):
                assert record.weights == versions[record.version].digest, "a version is what it was"
                continue
            assert record.version == len(versions)
            if record.rollback_of is not None or record.status is Status.PASSAGE:
                dropped |= {c.update for c in waiting.values()}
                versions.append(_older(entries, versions, record))
                echo = np.zeros(SIZE, np.float32)
                continue
            assert taken == waiting.keys(), "the updates folded are not those committed"
            version, echo = _next(fleet, versions[-1], echo, waiting, record)
            versions.append(version)
        if any(key.startswith(_OWN + "refused/") for key in entries):
            dropped |= {c.update for c in waiting.values()}
        if taken:
            waiting.clear()
    assert not waiting, "a committed update is in no version"

    newest = versions[-1]
    raw = world.stores["coordinator"].get(f"c/default/weights/{len(versions) - 1:08d}")
    assert raw == newest.weights.astype("<f4").tobytes()
    by_digest = {v.digest: v.weights.tobytes() for v in versions}
    for name, frames in sent.items():
        engine = world.node(name)
        assert isinstance(engine, DeviceEngine)
        assert world.stores[name].get("outbox") is None, f"{name} still waits for an answer"
        disk = restore(world.stores[name], SCHEMA, bundle=BUNDLE, initial=np.zeros(SIZE, np.float32))
        assert not disk.damaged
        assert disk.held.weights.tobytes() == engine.model.weights.tobytes()
        digest = next(d for d in by_digest if d.hex().startswith(disk.held.name))
        assert disk.held.weights.tobytes() == by_digest[digest]
        assert not everyone or digest == newest.digest, f"{name} does not hold the newest model"
        made = _sum(world.chronicle.changes.get(name, []))
        tick = disk.echo.tick
        assert not fleet.echo.gain or all(s.tick <= tick < len(versions) for s in frames)
        added = _sum([s.frame * (1 + s.repeated(fleet.echo, tick)) for s in frames])
        np.testing.assert_allclose(added + disk.residual.values, made, rtol=1e-4, atol=2e-5, err_msg=name)
        expected = _sum([s.frame * s.sounding(fleet.echo, tick) for s in frames])
        counted_on = np.zeros(SIZE) if disk.echo.values is None else disk.echo.values
        np.testing.assert_allclose(counted_on, expected, rtol=1e-4, atol=2e-5, err_msg=name)
    assert dropped <= seen
    return len(seen) - len(dropped)


def _older(entries: Mapping[str, bytes | None], versions: list[Any], record: ModelRecord) -> Any:
    """A version that a rollback makes, or a step on its way: the weights that were saved, nothing besides."""
    raw = entries[f"{_OWN}weights/{record.version:08d}"]
    assert raw is not None
    weights = np.frombuffer(raw, "<f4").astype(np.float32)
    assert weights_hash(weights, SCHEMA) == record.weights
    if record.rollback_of is not None:
        assert weights.tobytes() == versions[record.rollback_of].weights.tobytes()
    assert entries[f"{_OWN}server-residual"] == bytes(4 * SIZE)
    return replace(versions[0], weights=weights, residual=np.zeros(SIZE, np.float32), digest=record.weights)


@dataclass(frozen=True)
class _Sent:
    """A committed update, decoded, the step that it was folded into, and its factor there."""

    frame: Vector
    tick: int
    discount: float

    def sounding(self, echo: EchoSettings, tick: int) -> float:
        """Its part, in frames, of the step after `tick`."""
        return self.discount * echo.gain * echo.memory ** (tick - self.tick)

    def repeated(self, echo: EchoSettings, tick: int) -> float:
        """What has been added of it after its own step, up to that of `tick`."""
        return sum(self.sounding(echo, t) for t in range(self.tick, tick))


def _is_taken(key: str, blob: bytes | None) -> bool:
    return key.startswith((_UPDATE, _LATE)) and blob is None


def _sum(vectors: list[Vector]) -> Any:
    return np.sum(vectors, axis=0, dtype=np.float64) if vectors else np.zeros(SIZE)


def _next(
    fleet: Fleet, before: Any, echo: Vector, committed: Mapping[str, Committed], record: ModelRecord
) -> tuple[Any, Vector]:
    """The version after `before` and its echo, from the updates in the reverse order of their keys."""
    fold = Fold(SIZE)
    for _, c in sorted(committed.items(), reverse=True):
        update = decode(c.frame, SCHEMA, limit_bytes=4 * SIZE)
        fold.add(whole(update * np.float32(c.discount)), c.weight)
    silent = record.samples - fold.weight
    assert silent >= 0
    fold.add_silent(silent)
    after = advance(
        before.weights,
        before.residual,
        fold.mean() + echo,
        SCHEMA,
        codec=fleet.delta_codec,
        seed=record.version,
        full=False,
        evaluate=lambda w: None,
    )
    assert after.digest == record.weights, f"version {record.version} is not the sum of its updates"
    return after, np.float32(fleet.echo.memory) * echo + np.float32(fleet.echo.gain) * fold.mean()
