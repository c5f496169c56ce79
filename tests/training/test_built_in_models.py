"""Built-in models: of any shape, for classes and for values, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from laconic.runtime import Bundle, Trainer
from laconic.training import prepare
from laconic.training.models import mlp


@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 4, 4)])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_it_is_what_numpy_makes_of_its_weights(shape: tuple[int, ...], hidden: tuple[int, ...]) -> None:
    bundle = Bundle.read(prepare(mlp(shape, 3, hidden, seed=1), loss="cross_entropy"))
    rng = np.random.default_rng(0)
    weights = rng.normal(size=bundle.schema.size).astype(np.float32)
    x = rng.normal(size=(7, *shape)).astype(np.float32)
    parts = bundle.schema.unflatten(weights)
    value = x.reshape(7, -1)
    for number in range(1, len(hidden) + 2):
        value = value @ parts[f"dense{number}.weight"].T + parts[f"dense{number}.bias"]
        if number <= len(hidden):
            value = np.maximum(value, 0)
    np.testing.assert_allclose(Trainer(bundle).predict(weights, x), value, rtol=1e-4, atol=1e-5)


def test_a_seed_makes_weights_of_the_right_size() -> None:
    assert mlp((400,), 2, [300], seed=1) == mlp((400,), 2, [300], seed=1)
    assert mlp((400,), 2, [300], seed=1) != mlp((400,), 2, [300], seed=2)
    bundle = Bundle.read(prepare(mlp((400,), 2, [300], seed=1)))
    parts = bundle.schema.unflatten(bundle.initial)
    assert parts["dense1.weight"].std() == pytest.approx(np.sqrt(2 / 400), rel=0.02)
    assert parts["dense2.weight"].std() == pytest.approx(np.sqrt(1 / 300), rel=0.1)
    assert not parts["dense1.bias"].any()
    assert not Bundle.read(prepare(mlp((400,), 2, ()))).initial.any()


def test_a_line_through_points_is_found_and_has_no_accuracy() -> None:
    bundle = Bundle.read(prepare(mlp((2,), 1, ()), loss="mse"))
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    y = (x @ np.array([2.0, -1.0]) + 0.5).astype(np.float32)
    trainer = Trainer(bundle)
    found = trainer.train(bundle.initial, x, y, epochs=60, batch_size=8, learning_rate=0.1, seed=0)
    metrics = trainer.evaluate(found.weights, x, y)
    assert metrics.accuracy is None
    assert metrics.loss < 1e-6
    np.testing.assert_allclose(np.sort(found.weights), [-1.0, 0.5, 2.0], atol=1e-3)
