"""Long silences: nothing learnt fades away, nobody is asked in vain or works for a round that is over."""

from __future__ import annotations

import numpy as np
from fleet import SCHEMA, SIZE, Fleet, LinearLearner

from laconic.compression import PRESETS, GateSettings, GateState, norm
from laconic.compression.feedback import Residual
from laconic.edge_sdk.learner import Trained
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.sensors import NoSensors, Readings
from laconic.edge_sdk.work import Assignment, perform
from laconic.protocol import messages as m
from laconic.protocol import topics
from laconic.schema import Vector


class Fading(LinearLearner):
    """Learns a thousandth of what it learnt the round before."""

    step = 1.0

    def train(self, weights: Vector, training: m.Training, seed: int, private: bytes) -> Trained:
        self.step /= 1000
        return Trained(weights + np.float32(self.step), self.rows, None, None)


def test_what_was_not_sent_outlasts_changes_that_fade() -> None:
    """Recorded: the cap on the residual followed the last change down, and took the residual along."""
    learner = Fading(0)
    offer = m.Offer("0" * 16, 1, "1" * 16, 1, "2" * 16)
    residual, state = Residual(np.full(SIZE, 3.0, np.float32)), GateState(0, float(np.sqrt(SIZE) * 3))
    before = norm(residual.values)
    for _ in range(8):
        gate = GateSettings("running", 5.0, 100)
        weights = np.zeros(SIZE, np.float32)
        outcome = perform(Assignment(offer, weights, residual, state, PRESETS["small"], gate, 0), learner)
        assert outcome.frame is None
        residual, state = outcome.residual, outcome.gate_state
    assert norm(residual.values) >= before
    assert SCHEMA.size == residual.values.size


class Flat(NoSensors):
    """A battery that is empty until it is charged, an hour later."""

    def read(self, now: float) -> Readings:
        return Readings(charge=0.05 if now < 3600 else 0.9)


def test_a_fleet_with_empty_batteries_is_not_asked_without_a_pause() -> None:
    fleet = Fleet(rounds=100, sensors=lambda i: Flat(), limits=Limits(min_charge=0.2))
    world = fleet.world()
    fleet.run(world, 3599.0)
    closed = [note for _, who, note in world.notes if who == "coordinator" and note.kind == "closed"]
    assert 30 <= len(closed) <= 61, "one a minute at most"
    fleet.run(world, 20_000.0)
    assert any(n.kind == "committed" for _, _, n in world.notes)


def test_between_rounds_there_is_no_task_to_be_found() -> None:
    fleet = Fleet(rounds=3, interval_s=500.0)
    world = fleet.world()
    world.run(1.0)
    assert topics.cohort_task("default") in world.broker.retained
    world.run(100.0)
    assert topics.cohort_task("default") not in world.broker.retained
    world.run(600.0)
    assert len([n for _, _, n in world.notes if n.kind == "opened"]) == 2
