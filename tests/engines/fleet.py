"""A small real fleet for engine tests: linear regression by gradient descent in numpy, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from laconic.compression import PRESETS, CodecSettings
from laconic.compression.echo import EchoSettings
from laconic.coordinator.advance import Evaluate, Score
from laconic.coordinator.aggregation.optimizers import ServerSettings
from laconic.coordinator.aggregation.settings import AggregationSettings
from laconic.coordinator.campaign import Campaign, Subject
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.rounds import Plan
from laconic.coordinator.schedule import Schedule
from laconic.coordinator.staleness import Lateness
from laconic.coordinator.verdict import ModelSettings
from laconic.device_sim.world import Connection, Speed, World
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Learner, Measured, Trained
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.sensors import Sensors
from laconic.protocol.messages import Eligibility, Feedback, Gate, Training
from laconic.schema import Schema, TensorSpec, Vector

SIZE = 80
SCHEMA = Schema((TensorSpec("w", (8, 9)), TensorSpec("b", (8,))))
BUNDLE = "ab" * 8
TRUTH = np.random.default_rng(99).normal(size=SIZE).astype(np.float32)


@dataclass
class LinearLearner:
    """Least squares on this device's own rows: a real learner whose optimum is known."""

    seed: int
    rows: int = 120
    schema: Schema = SCHEMA
    bundle: str = BUNDLE

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self._x = rng.normal(size=(self.rows, SIZE)).astype(np.float32)
        self._y = self._x @ TRUTH

    @property
    def initial(self) -> Vector:
        return np.zeros(SIZE, np.float32)

    @property
    def samples(self) -> int:
        return self.rows

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        w = weights.astype(np.float64)
        losses = []
        for _ in range(training.epochs):
            error = self._x @ w - self._y
            losses.append(float(np.mean(error**2)))
            w = w - training.learning_rate * self._x.T @ error / self.rows
        return Trained(w.astype(np.float32), self.rows, losses[0], losses[-1])

    def measure(self, weights: Vector, private: bytes) -> Measured:
        error = self._x @ weights.astype(np.float64) - self._y
        return Measured(float(np.mean(error**2)), None)


def distance(weights: Vector) -> float:
    """How far from the truth, relative."""
    return float(np.linalg.norm(weights - TRUTH) / np.linalg.norm(TRUTH))


@dataclass
class Fleet:
    """A coordinator and devices in a world."""

    devices: int = 3
    rounds: int = 3
    min_reports: int = 1
    min_devices: int | None = None
    """None: all of them."""
    deadline_s: float = 60.0
    interval_s: float = 0.0
    target_reports: int = 0
    over_selection: float = 1.3
    lateness: Lateness = field(default_factory=Lateness)
    schedule: Schedule = field(default_factory=Schedule)
    until_accuracy: float | None = None
    sample_s: Callable[[int], float] = lambda i: 1e-3
    """Seconds that a device's training takes for a sample."""
    codec: CodecSettings = field(default_factory=lambda: PRESETS["small"])
    delta_codec: CodecSettings = field(default_factory=lambda: PRESETS["small"])
    gate: Gate = field(default_factory=Gate)
    echo: EchoSettings = field(default_factory=EchoSettings)
    feedback: Feedback = field(default_factory=lambda: Feedback(decay=1.0, stale_after=2**40))
    """By default nothing is forgotten, so that what is conserved can be counted."""
    eligibility: Eligibility = field(default_factory=Eligibility)
    targeted: bool = False
    share: float = 1.0
    chunk_bytes: int = 48 * 1024
    own_chunk_bytes: Callable[[int], int] | None = None
    """Of a device, where that is not the same: what is shorter goes within its promise."""
    key: bytes | None = None
    limits: Limits = field(default_factory=Limits)
    sensors: Callable[[int], Sensors | None] = lambda i: None
    keep_versions: int = 8
    learner: Callable[[int], Learner] = LinearLearner
    retry_s: float = 2.0
    max_devices: int = 100_000
    aggregation: AggregationSettings = field(default_factory=AggregationSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    models: ModelSettings = field(default_factory=ModelSettings)
    evaluate: Evaluate = lambda w: Score(distance(w), 1.0 - distance(w))

    def campaign(self) -> Campaign:
        return Campaign(
            fleet="test",
            cohort="default",
            plan=Plan(
                self.rounds,
                self.devices if self.min_devices is None else self.min_devices,
                self.min_reports,
                self.deadline_s,
                self.interval_s,
                self.target_reports,
                self.over_selection,
            ),
            lateness=self.lateness,
            schedule=self.schedule,
            until_accuracy=self.until_accuracy,
            training=Training(epochs=3, batch_size=16, learning_rate=0.2),
            codec=self.codec,
            delta_codec=self.delta_codec,
            gate=self.gate,
            echo=self.echo,
            feedback=self.feedback,
            eligibility=self.eligibility,
            targeted=self.targeted,
            share=self.share,
            chunk_bytes=self.chunk_bytes,
            key=self.key,
            keep_versions=self.keep_versions,
            models=self.models,
            aggregation=self.aggregation,
            server=self.server,
        )

    def coordinator(self) -> CoordinatorEngine:
        return CoordinatorEngine([(self.campaign(), self.subject())], max_devices=self.max_devices)

    def subject(self) -> Subject:
        initial = np.zeros(SIZE, np.float32)
        return Subject(BUNDLE, SCHEMA, initial, self.evaluate)

    def device(self, i: int) -> DeviceEngine:
        chunk_bytes = self.chunk_bytes if self.own_chunk_bytes is None else self.own_chunk_bytes(i)
        settings = DeviceSettings(
            f"d{i}", key=self.key, chunk_bytes=chunk_bytes, limits=self.limits, retry_s=self.retry_s
        )
        return DeviceEngine(settings, self.learner(i), self.sensors(i))

    def world(self, world: World | None = None) -> World:
        world = world or World()
        world.add("coordinator", self.coordinator, connection=Connection(0.001, 1e8, 1e8))
        for i in range(self.devices):
            world.add(
                f"d{i}",
                lambda i=i: self.device(i),
                connection=Connection(0.02 + 0.01 * i, 1e5, 2e5),
                speed=Speed(0.05 * (i + 1), self.sample_s(i)),
            )
        return world

    def run(self, world: World, until_s: float = 3600.0) -> World:
        def finished() -> bool:
            node = world.node("coordinator")
            return isinstance(node, CoordinatorEngine) and node.finished

        world.run(until_s, stop=finished)
        return world
