"""A small fleet of production engines for tests of the world: each device knows one number of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from laconic.coordinator.advance import Score
from laconic.coordinator.campaign import Campaign, Subject
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.rounds import Plan
from laconic.device_sim.body import Body
from laconic.device_sim.sensors import SimSensors
from laconic.device_sim.world import Connection, Speed, World
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Measured, Trained
from laconic.protocol.messages import Training
from laconic.schema import Schema, TensorSpec, Vector

SIZE = 600
SCHEMA = Schema((TensorSpec("w", (SIZE,)),))
BUNDLE = "cd" * 8


@dataclass
class Pull:
    """Pulls the model towards a point."""

    seed: int
    schema: Schema = SCHEMA
    bundle: str = BUNDLE
    samples: int = 50

    @property
    def initial(self) -> Vector:
        return np.zeros(SIZE, np.float32)

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        target = np.random.default_rng(self.seed).normal(size=SIZE)
        return Trained((weights + 0.5 * (target - weights)).astype(np.float32), self.samples, 1.0, 0.5)

    def measure(self, weights: Vector, private: bytes) -> Measured:
        return Measured(0.5, None)


def fleet(
    world: World,
    devices: int = 3,
    rounds: int = 3,
    *,
    connection: Callable[[int], Connection] = lambda i: Connection(),
    body: Callable[[int], Body | None] = lambda i: None,
    sample_s: float = 0.1,
    min_devices: int | None = None,
    deadline_s: float = 600.0,
    **options: Any,
) -> World:
    """A coordinator and devices; `options` go to `World.add` of each device."""
    plan = Plan(rounds, min_devices or devices, 1, deadline_s)
    campaign = Campaign(fleet="test", cohort="default", plan=plan, training=Training(1, 10, 0.1))
    subject = Subject(BUNDLE, SCHEMA, np.zeros(SIZE, np.float32), lambda w: Score(0.0, 0.0))
    world.add(
        "coordinator",
        lambda: CoordinatorEngine([(campaign, subject)]),
        connection=Connection(0.001, 1e8, 1e8),
    )
    for i in range(devices):

        def make(i: int = i) -> DeviceEngine:
            return DeviceEngine(DeviceSettings(f"d{i}"), Pull(i), SimSensors(world.host(f"d{i}")))

        world.add(
            f"d{i}", make, connection=connection(i), speed=Speed(0.5, sample_s), body=body(i), **options
        )
    return world


def finished(world: World) -> bool:
    """Whether the campaign is over."""
    node = world.node("coordinator")
    return isinstance(node, CoordinatorEngine) and node.finished
