"""Long silences: nothing learnt fades away, nobody is asked in vain or works for a round that is over."""

from __future__ import annotations

import numpy as np
from chronicle import logged, settle
from fleet import BUNDLE, SCHEMA, SIZE, Fleet, LinearLearner

from laconic.compression import PRESETS, GateSettings, GateState, norm
from laconic.compression.feedback import Residual
from laconic.edge_sdk.learner import Trained
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.records import restore
from laconic.edge_sdk.sensors import NoSensors, Readings
from laconic.edge_sdk.work import Assignment, feedback_of, perform
from laconic.protocol import messages as m
from laconic.protocol import topics
from laconic.schema import Vector


class Fading(LinearLearner):
    """Learns a thousandth of what it learnt the round before."""

    step = 1.0

    def train(
        self, weights: Vector, training: m.Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
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


def test_a_residual_grows_old_with_every_version_that_the_device_missed() -> None:
    """One version after the other costs nothing; three missed ones cost what the offer says; many, all."""
    for version, factor in ((5, 1.0), (6, 1.0), (9, 0.5**3), (30, 0.0)):
        residual, weights = Residual(np.full(SIZE, 3.0, np.float32), 5), np.zeros(SIZE, np.float32)
        offer = m.Offer("0" * 16, 1, "1" * 16, version, "2" * 16, feedback=m.Feedback(30.0, 0.5, 10))
        shut = GateSettings("absolute", 1e9, 100)
        work = Assignment(
            offer, weights, residual, GateState(), PRESETS["small"], shut, 0, feedback=feedback_of(offer)
        )
        change = Fading(0).train(weights, offer.training, 0, b"").weights
        outcome = perform(work, Fading(0))
        old = outcome.residual.values - change
        reach = min(1.0, 30 * norm(change) / max(norm(factor * residual.values + change), 1e-9))
        np.testing.assert_allclose((old + change) / reach - change, 3.0 * factor, rtol=1e-3, atol=1e-4)
        assert outcome.residual.version == version


def test_the_age_of_a_residual_outlasts_a_restart() -> None:
    fleet = Fleet(rounds=4, gate=m.Gate("absolute", 1e9, 1000))
    world = logged(fleet)
    settle(fleet, world)
    kept = restore(world.stores["d0"], SCHEMA, bundle=BUNDLE, initial=np.zeros(SIZE, np.float32))
    assert kept.residual.version == 0
    assert kept.residual.values.any()
    other = restore(world.stores["d0"], SCHEMA, bundle="cd" * 8, initial=np.zeros(SIZE, np.float32))
    assert (other.residual.version, other.diary.residual_version) == (None, None)


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
