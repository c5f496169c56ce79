"""A world's devices train in stacks: who meets whom depends on virtual time alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tiny_models import jobs_for, perceptron

from laconic.coordinator.advance import Score
from laconic.coordinator.campaign import Campaign, Subject
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.rounds import Plan
from laconic.device_sim.computing import Failures, Speed
from laconic.device_sim.learning import Job, Outcome, Workshop
from laconic.device_sim.links import Connection
from laconic.device_sim.sensors import SimSensors
from laconic.device_sim.world import World
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Interrupted, OnnxLearner
from laconic.errors import ConfigError, LocalProtocolError
from laconic.protocol.messages import Training
from laconic.runtime import Trainer, TrainResult

DEVICES = 5


def played(workshop: Workshop, met: list[int]) -> World:
    """Devices that train on data of their own, some of whose jobs are never finished."""
    bundle = perceptron()
    gathering = workshop._gathering
    if gathering is not None:
        work = gathering._work

        def counted(jobs: Sequence[Job]) -> list[Outcome]:
            met.append(len(jobs))
            return work(jobs)

        gathering._work = counted
    world = World(seed=3, executor=workshop.executor)
    name = bundle.hash[:16]
    campaign = Campaign(
        fleet="test", cohort="default", plan=Plan(3, 3, 1, 600.0), training=Training(2, 4, 0.1)
    )
    subject = Subject(name, bundle.schema, bundle.initial, lambda w: Score(0.0, 0.0))
    world.add("coordinator", lambda: CoordinatorEngine([(campaign, subject)]), connection=Connection(0.001))
    for i, job in enumerate(jobs_for(bundle, [9, 12, 5, 9, 20])):

        def make(i: int = i, job: Job = job) -> DeviceEngine:
            learner = OnnxLearner(workshop.trainer, (job.x, job.y))
            return DeviceEngine(DeviceSettings(f"d{i}"), learner, SimSensors(world.host(f"d{i}")))

        world.add(f"d{i}", make, speed=Speed(0.5, 0.01), failures=Failures(crash=0.1))

    def over() -> bool:
        node = world.node("coordinator")
        return isinstance(node, CoordinatorEngine) and node.finished

    world.run(20_000.0, stop=over)
    assert over()
    return world


def test_a_world_trains_in_stacks_and_repeats_itself() -> None:
    met: list[int] = []
    traces = []
    for threads in (1, 3):
        with Workshop(perceptron(), way="stacks", threads=threads) as workshop:
            traces.append(played(workshop, met).trace)
    assert traces[0] == traces[1]
    assert max(met) > 1
    with Workshop(perceptron(), way="threads") as workshop:
        # Rounding changes bytes, and nothing of what happens.
        events = [line.split()[:3] for line in played(workshop, met).trace]
    assert events == [line.split()[:3] for line in traces[0]]


def test_learners_that_meet_learn_what_they_would_have_learnt_alone() -> None:
    bundle = perceptron()
    jobs = jobs_for(bundle, [9, 12, 5])
    order = Training(2, 4, 0.1)
    with Workshop(bundle, way="stacks") as workshop:
        futures = []
        for job in jobs:
            learner = OnnxLearner(workshop.trainer, (job.x, job.y))
            futures.append(workshop.executor.submit(learner.train, job.weights, order, 7, b""))
        together = [future.result() for future in futures]
    for job, found in zip(jobs, together, strict=True):
        alone = OnnxLearner(Trainer(bundle), (job.x, job.y)).train(job.weights, order, 7, b"")
        assert not isinstance(found, Interrupted)
        assert not isinstance(alone, Interrupted)
        np.testing.assert_allclose(found.weights, alone.weights, rtol=2e-5, atol=4e-6)
        assert found.samples == alone.samples
        assert found.loss_after == pytest.approx(alone.loss_after, rel=1e-5)


def test_one_that_fails_and_one_that_never_trains_hold_nobody_up() -> None:
    bundle = perceptron()
    good, bad = jobs_for(bundle, [9, 9])
    with Workshop(bundle, way="stacks") as workshop:
        trainer, submit = workshop.trainer, workshop.executor.submit
        found = submit(lambda: trainer.train(**good.arguments))
        failed = submit(lambda: trainer.train(**{**bad.arguments, "epochs": 0}))
        idle = submit(lambda: 3)
        twice = submit(lambda: [trainer.train(**good.arguments) for _ in range(2)])
        assert isinstance(found.result(), TrainResult)
        with pytest.raises(ConfigError, match="number of epochs"):
            failed.result()
        assert idle.result() == 3
        assert len(twice.result()) == 2


def test_elsewhere_it_is_an_ordinary_trainer() -> None:
    bundle = perceptron()
    (job,) = jobs_for(bundle, [9])
    with Workshop(bundle, way="stacks") as workshop:
        found = workshop.trainer.train(**job.arguments)
        gathered = workshop.executor.submit(lambda: workshop.trainer.start(**job.arguments))
        run = gathered.result()
    assert found.weights.tobytes() == Trainer(bundle).train(**job.arguments).weights.tobytes()
    with pytest.raises(LocalProtocolError, match="no checkpoint"):
        run.checkpoint()
    with pytest.raises(LocalProtocolError, match="before it has ended"):
        run.result()
