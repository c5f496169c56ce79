"""SCAFFOLD's steps against arithmetic in float64, what preparing refuses, and what the law of it is for."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_models import normal, perceptron, softmax_regression

from laconic.errors import ConfigError, Malformed, ModelError
from laconic.runtime import Bundle, Trainer, pack
from laconic.training import prepare
from laconic.training.explain import explained, lines
from laconic.training.optimizers import sgd
from laconic.training.plan import plan
from often import examples

Exact = NDArray[np.float64]

BUNDLE = Bundle.read(prepare(softmax_regression(), scaffold=True))
PLAIN = Bundle.read(prepare(softmax_regression()))
TRAINERS = {form: Trainer(BUNDLE, form=form) for form in ("epoch", "step")}
WEIGHTS, CONTROLS = slice(0, 18), slice(18, 36)


def gradient(w: Exact, x: Exact, y: NDArray[np.int64]) -> Exact:
    """Of softmax regression's mean cross entropy, from the textbook; 5 features, 3 classes."""
    logits = x @ w[:15].reshape(5, 3) + w[15:]
    p = np.exp(logits - logits.max(1, keepdims=True))
    d = (p / p.sum(1, keepdims=True) - np.eye(3)[y]) / len(y)
    return np.concatenate([(x.T @ d).ravel(), d.sum(0)])


@given(
    seed=st.integers(0, 2**20),
    samples=st.integers(1, 25),
    epochs=st.integers(1, 3),
    batch=st.integers(1, 10),
    rate=st.floats(0.01, 0.5),
    form=st.sampled_from(sorted(TRAINERS)),
)
@settings(max_examples=examples(40))
def test_steps_and_the_own_control_variate_are_the_papers(
    seed: int, samples: int, epochs: int, batch: int, rate: float, form: str
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((samples, 5)).astype(np.float32), rng.integers(0, 3, samples)
    start, own = (rng.standard_normal(n).astype(np.float32) for n in (36, 18))
    result = TRAINERS[form].train(
        start, x, y, epochs=epochs, batch_size=batch, learning_rate=rate, seed=seed, control=own
    )
    w, shared, steps = start[WEIGHTS].astype(np.float64), start[CONTROLS].astype(np.float64), []
    order = np.random.default_rng(seed)
    for _ in range(epochs):
        turn = order.permutation(samples)
        for i in range(0, samples, min(batch, samples)):
            rows = turn[i : i + min(batch, samples)]
            steps.append(gradient(w, x[rows].astype(np.float64), y[rows]))
            w = w - rate * (steps[-1] - own + shared)
    assert np.allclose(result.weights[WEIGHTS], w, atol=1e-4)
    # Option II is the mean gradient; what is read off weights in float32 has their rounding over the way.
    tolerance = 1e-5 / (rate * len(steps)) + 1e-4
    assert np.allclose(result.control, np.mean(steps, axis=0), atol=tolerance)
    change = (result.weights - start)[CONTROLS]
    assert np.allclose(change, result.control - own, atol=1e-5)


def test_without_variates_yet_it_is_plain_sgd() -> None:
    x, y = normal(3, 20, 5), np.arange(20) % 3
    run: dict[str, Any] = {"epochs": 2, "batch_size": 7, "learning_rate": 0.2, "seed": 1}
    plain = Trainer(PLAIN).train(PLAIN.initial, x, y, **run)
    first = TRAINERS["epoch"].train(BUNDLE.initial, x, y, **run)
    assert np.allclose(first.weights[WEIGHTS], plain.weights, atol=1e-6)
    assert not plain.control.size
    # Where fleet and device agree there is nothing to correct, whatever they agree on.
    agreed = BUNDLE.initial.copy()
    agreed[CONTROLS] = own = normal(4, 18)
    again = TRAINERS["epoch"].train(agreed, x, y, **run, control=own)
    assert np.array_equal(again.weights[WEIGHTS], first.weights[WEIGHTS])


def test_a_run_of_no_steps_or_none_that_move_leaves_the_variate_alone() -> None:
    x, y, own = normal(3, 20, 5), np.arange(20) % 3, normal(4, 18)
    run: dict[str, Any] = {"epochs": 1, "batch_size": 5, "seed": 1, "control": own}
    for more in ({"learning_rate": 0.1, "should_stop": lambda: True}, {"learning_rate": 0.0}):
        result = TRAINERS["epoch"].train(BUNDLE.initial, x, y, **run, **more)
        assert np.array_equal(result.control, own)
        assert np.array_equal(result.weights, BUNDLE.initial)


def test_many_local_steps_are_biased_without_it_and_reach_the_joint_optimum_with_it() -> None:
    # Devices with other features and other answers: each runs towards its own optimum.
    rng = np.random.default_rng(5)
    data = []
    for device in range(4):
        x = (rng.standard_normal((40, 5)) * (0.5 + device) + device).astype(np.float32)
        data.append((x, np.where(rng.random(40) < 0.7, device % 3, rng.integers(0, 3, 40))))
    xs, ys = np.concatenate([x for x, _ in data]).astype(np.float64), np.concatenate([y for _, y in data])
    run: dict[str, Any] = {"epochs": 20, "batch_size": 40, "learning_rate": 0.03, "seed": 0}

    def slope(trainer: Trainer, rounds: int) -> float:
        """Length of the joint gradient after so many rounds of averaging."""
        bundle = trainer.bundle
        weights, own = bundle.initial, [np.zeros(bundle.control_schema.size, np.float32) for _ in data]
        for _ in range(rounds):
            results = [
                trainer.train(weights, x, y, **run, control=c if c.size else None)
                for (x, y), c in zip(data, own, strict=True)
            ]
            own = [r.control for r in results]
            weights = weights + np.mean([r.weights - weights for r in results], axis=0, dtype=np.float32)
        return float(np.linalg.norm(gradient(weights[WEIGHTS].astype(np.float64), xs, ys)))

    start = float(np.linalg.norm(gradient(BUNDLE.initial[WEIGHTS].astype(np.float64), xs, ys)))
    averaged = slope(Trainer(PLAIN), 60)
    controlled = slope(TRAINERS["epoch"], 60)
    assert averaged > 1e-2 * start
    assert controlled < averaged / 20


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"optimizer": "adam"}, "optimizer"),
        ({"optimizer": "momentum"}, "optimizer"),
        ({"clip_norm": 1.0}, "clip_norm"),
        ({"proximal": True}, "proximal"),
    ],
)
def test_steps_that_are_not_plain_sgd_are_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=f"{what} with scaffold"):
        prepare(perceptron(), scaffold=True, **arguments)


def test_weights_that_travel_have_a_variate_and_no_others() -> None:
    file = prepare(perceptron(), optimizer=sgd(weight_decay=0.1), scaffold=True, frozen=["w1"], local=["b2"])
    bundle = Bundle.read(file)
    assert [(p.name, p.role, p.kind) for p in bundle.manifest.parameters] == [
        ("w1", "frozen", "weight"),
        ("b1", "trainable", "weight"),
        ("w2", "trainable", "weight"),
        ("b2", "local", "weight"),
        ("control/b1", "trainable", "control"),
        ("control/w2", "trainable", "control"),
    ]
    assert bundle.schema.controls == slice(32, 64)
    assert not bundle.initial[32:].any()
    result = Trainer(bundle).train(
        bundle.initial, normal(1, 9, 4), np.arange(9) % 3, epochs=1, batch_size=4, learning_rate=0.1, seed=0
    )
    assert result.control.shape == (32,)
    assert result.local.shape == (3,)


def test_explaining_shows_them_and_what_they_cost() -> None:
    found, plain = (explained(plan(softmax_regression(), scaffold=scaffold)) for scaffold in (True, False))
    assert found.parameters[2:] == (
        ("control/W", (5, 3), "trainable", "control"),
        ("control/b", (3,), "trainable", "control"),
    )
    assert found.update_bytes == 2 * plain.update_bytes
    assert any("control/W" in line and "control" in line.split()[-1] for line in lines(found))


def test_a_variate_of_another_bundle_is_refused() -> None:
    run: dict[str, Any] = {"epochs": 1, "batch_size": 5, "learning_rate": 0.1, "seed": 1}
    x, y = normal(3, 5, 5), np.zeros(5, np.int64)
    with pytest.raises(ConfigError, match="scaffold=True"):
        Trainer(PLAIN).train(PLAIN.initial, x, y, **run, control=np.zeros(18, np.float32))
    for wrong in (np.zeros(17, np.float32), np.full(18, np.nan, np.float32), np.zeros(18)):
        with pytest.raises(ModelError):
            TRAINERS["epoch"].train(BUNDLE.initial, x, y, **run, control=wrong)


@pytest.mark.parametrize("what", ["missing", "order", "role", "shape", "name"])
def test_variates_that_do_not_fit_their_weights_are_malformed(what: str) -> None:
    *weights, first, last = BUNDLE.manifest.parameters
    replace = msgspec.structs.replace
    changed = {
        "missing": [*weights, first],
        "order": [*weights, last, first],
        "role": [*weights, replace(first, role="frozen"), last],
        "shape": [*weights, replace(first, shape=(3, 5)), last],
        "name": [*weights, replace(first, name="other"), last],
    }[what]
    manifest = replace(BUNDLE.manifest, parts=(), parameters=tuple(changed))
    with pytest.raises(Malformed, match="control variates"):
        pack(manifest, BUNDLE.parts)
