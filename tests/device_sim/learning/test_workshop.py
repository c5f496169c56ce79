"""Virtual devices that really train: every way agrees with one device after the other."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CLASSES, FEATURES, convolution, dense, jobs_for, perceptron

from laconic.device_sim.learning import Job, Outcome, Workshop, way_by_measuring, way_by_size
from laconic.errors import ConfigError, NonFinite
from laconic.runtime import Bundle, OptimizerState, Trainer, TrainResult
from laconic.training import (
    adam,
    binary_cross_entropy,
    cross_entropy,
    huber,
    mean_absolute_error,
    mean_squared_error,
    momentum,
    prepare,
    sgd,
)
from often import examples


def trained(outcome: Outcome) -> TrainResult:
    assert isinstance(outcome, TrainResult)
    return outcome


def check_agreement(bundle: Bundle, jobs: list[Job], outcomes: list[Outcome]) -> None:
    """To float32 rounding: a few units in the last place of numbers around 1."""
    trainer = Trainer(bundle)
    assert len(outcomes) == len(jobs)
    for job, outcome in zip(jobs, outcomes, strict=True):
        alone, found = trainer.train(**job.arguments), trained(outcome)
        assert (found.steps, found.samples) == (alone.steps, alone.samples)
        assert found.optimizer.step == alone.optimizer.step
        assert sorted(found.optimizer.slots) == sorted(alone.optimizer.slots)
        pairs = [(found.optimizer.slots[s], alone.optimizer.slots[s]) for s in alone.optimizer.slots]
        pairs += [(getattr(found, n), getattr(alone, n)) for n in ("weights", "local", "losses", "control")]
        for ours, theirs in pairs:
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=4e-6)


@given(
    st.lists(st.integers(1, 23), min_size=1, max_size=8),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from(["sgd", "momentum", "adam"]),
    st.integers(0, 2**40),
)
@settings(max_examples=examples(80), deadline=None)
def test_stacks_agree_with_one_by_one(
    samples: list[int], batch: int, epochs: int, optimizer: str, seed: int
) -> None:
    bundle = perceptron(optimizer)
    jobs = jobs_for(bundle, samples, epochs=epochs, batch_size=batch)
    # Other rates would take Adam's quotients of small numbers apart.
    jobs = [replace(job, seed=seed + i, learning_rate=0.01) for i, job in enumerate(jobs)]
    with Workshop(bundle, way="stacks", threads=1) as workshop:
        check_agreement(bundle, jobs, workshop.train(jobs))


FORMS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "linear": (dense(FEATURES, CLASSES), {}),
    "softmax": (dense(FEATURES, CLASSES, softmax=True), {}),
    "three layers": (dense(FEATURES, 5, 4, 3, activation="Tanh"), {}),
    "flattened": (dense(FEATURES, 5, 3, activation="Sigmoid", flat=False), {}),
    "elu": (dense(FEATURES, 5, 3, activation="Elu"), {}),
    "softplus": (dense(FEATURES, 5, 3, activation="Softplus"), {}),
    "leaky": (dense(FEATURES, 5, 3, activation="LeakyRelu"), {}),
    "squares": (dense(FEATURES, 5, 2), {"loss": mean_squared_error()}),
    "absolute": (dense(FEATURES, 5, 2), {"loss": mean_absolute_error()}),
    "huber": (dense(FEATURES, 5, 1), {"loss": huber()}),
    "binary": (dense(FEATURES, 5, 1), {"loss": binary_cross_entropy()}),
    "smoothed": (dense(FEATURES, 5, 3), {"loss": cross_entropy(label_smoothing=0.1)}),
    "decay": (dense(FEATURES, 5, 3), {"optimizer": sgd(weight_decay=0.01)}),
    "nesterov": (dense(FEATURES, 5, 3), {"optimizer": momentum(nesterov=True, weight_decay=0.01)}),
    "adamw": (dense(FEATURES, 5, 3), {"optimizer": adam(weight_decay=0.01)}),
    "clipped": (dense(FEATURES, 5, 3), {"clip_norm": 0.5}),
    "proximal": (dense(FEATURES, 5, 3), {"proximal": True}),
    "local": (dense(FEATURES, 5, 3), {"local": ["w1", "b1"]}),
    "frozen": (dense(FEATURES, 5, 3), {"frozen": ["w0"]}),
}


@pytest.mark.parametrize("name", FORMS)
def test_what_can_be_stacked(name: str) -> None:
    model, options = FORMS[name]
    bundle = Bundle.read(prepare(model, **options))
    assert way_by_size(bundle) == "stacks"
    jobs = jobs_for(bundle, [9, 5, 8, 8, 1], learning_rate=0.02)
    if bundle.manifest.proximal:
        jobs = [replace(job, proximal_mu=0.1 * i) for i, job in enumerate(jobs)]
    with Workshop(bundle) as workshop:
        check_agreement(bundle, jobs, workshop.train(jobs))


def test_a_device_goes_on_with_what_it_had() -> None:
    bundle = Bundle.read(prepare(dense(FEATURES, 5, 3), optimizer="adam", local=["w1"]))
    with Workshop(bundle, way="stacks") as workshop:
        jobs = jobs_for(bundle, [8, 8], learning_rate=0.01)
        first = [trained(o) for o in workshop.train(jobs)]
        later = [
            replace(job, weights=r.weights, local=r.local, optimizer=r.optimizer)
            for job, r in zip(jobs, first, strict=True)
        ]
        # One is at another step than the other.
        later[1] = replace(later[1], optimizer=OptimizerState.initial(bundle))
        check_agreement(bundle, later, workshop.train(later))


def same_bits(ours: list[Outcome], theirs: list[Outcome]) -> bool:
    pairs = zip(map(trained, ours), map(trained, theirs), strict=True)
    return all(
        a.weights.tobytes() == b.weights.tobytes() and a.losses.tobytes() == b.losses.tobytes()
        for a, b in pairs
    )


@pytest.mark.parametrize("way", ["stacks", "threads"])
def test_any_number_of_threads_gives_the_same_bits(way: Any) -> None:
    bundle = perceptron("momentum")
    jobs = jobs_for(bundle, [*range(1, 40), *([30] * 80)])
    with Workshop(bundle, way=way, threads=1) as one, Workshop(bundle, way=way, threads=3) as three:
        found = one.train(jobs)
        assert same_bits(found, three.train(jobs))
    if way == "threads":
        trainer = Trainer(bundle)
        assert same_bits(found, [trainer.train(**job.arguments) for job in jobs])


@pytest.mark.parametrize("way", ["stacks", "threads"])
def test_a_job_that_fails_leaves_the_others_alone(way: Any) -> None:
    bundle = perceptron()
    jobs = jobs_for(bundle, [8] * 6)
    x = jobs[1].x.copy()  # type: ignore[union-attr]
    x[3] = np.nan
    jobs[1] = replace(jobs[1], x=x)
    jobs[2] = replace(jobs[2], x=jobs[2].x[:, :-1])  # type: ignore[index]
    jobs[4] = replace(jobs[4], batch_size=0)
    with Workshop(bundle, way=way) as workshop:
        outcomes = workshop.train(jobs)
    assert isinstance(outcomes[1], NonFinite)
    assert isinstance(outcomes[2], ConfigError)
    assert isinstance(outcomes[4], ConfigError)
    sound = [0, 3, 5]
    check_agreement(bundle, [jobs[i] for i in sound], [outcomes[i] for i in sound])


def test_no_job_at_all() -> None:
    with Workshop(perceptron()) as workshop:
        assert workshop.train([]) == []


REFUSED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "an operator": (convolution(), {}),
    "control variates": (dense(FEATURES, CLASSES), {"scaffold": True}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stacked_goes_through_threads(name: str) -> None:
    model, options = REFUSED[name]
    bundle = Bundle.read(prepare(model, **options))
    assert way_by_size(bundle) == "threads"
    jobs = jobs_for(bundle, [5, 3])
    assert way_by_measuring(bundle, jobs) == "threads"
    with Workshop(bundle) as workshop:
        assert workshop.way == "threads"
        check_agreement(bundle, jobs, workshop.train(jobs))
    with pytest.raises(ConfigError, match="leave `way` away"):
        Workshop(bundle, way="stacks")


def test_without_onnx_devices_train_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = perceptron()
    assert way_by_size(bundle) == "stacks"
    for name in ("stacking", "operators"):
        monkeypatch.delitem(sys.modules, f"laconic.device_sim.learning.{name}")
    monkeypatch.setitem(sys.modules, "onnx", None)
    jobs = jobs_for(bundle, [5, 3])
    with Workshop(bundle) as workshop:
        assert workshop.way == "threads"
        check_agreement(bundle, jobs, workshop.train(jobs))


def test_a_way_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="way of training"):
        Workshop(perceptron(), way="both")  # type: ignore[arg-type]


def test_a_large_model_goes_through_threads() -> None:
    assert way_by_size(Bundle.read(prepare(dense(2500, 10)))) == "threads"


def test_measuring_names_a_way_that_exists() -> None:
    bundle = perceptron()
    with Workshop(bundle, way=way_by_measuring(bundle, jobs_for(bundle, [8] * 4))) as workshop:
        assert workshop.way in ("stacks", "threads")
