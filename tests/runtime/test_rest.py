"""A trainer that rests gives back what it trains with, and computes what it would have."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from laconic.runtime import Bundle, Trainer
from laconic.runtime.buffers import Form


@functools.cache
def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((40, 4)).astype(np.float32), rng.integers(0, 3, 40)


SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1, "seed": 5}


@pytest.mark.parametrize("form", ["epoch", "step"])
def test_rest_between_two_runs_and_within_one_changes_no_bit(bundle: Bundle, form: Form) -> None:
    x, y = data()
    whole = Trainer(bundle, form=form, stretch_s=1e-6).train(bundle.initial, x, y, **SETTINGS)
    trainer = Trainer(bundle, form=form, stretch_s=1e-6)
    for _ in range(2):
        run = trainer.start(bundle.initial, x, y, **SETTINGS)
        for _ in run:
            trainer.rest()
        assert run.result().weights.tobytes() == whole.weights.tobytes()
        assert run.result().losses.tobytes() == whole.losses.tobytes()
    assert trainer.evaluate(whole.weights, x, y) == Trainer(bundle).evaluate(whole.weights, x, y)


def test_rest_lets_go_of_all_but_what_predicts(bundle: Bundle) -> None:
    x, y = data()
    trainer = Trainer(bundle)
    predictor = trainer.predictor(bundle.initial)
    before = predictor.predict(x)
    trainer.train(bundle.initial, x, y, **SETTINGS)
    trainer.evaluate(bundle.initial, x, y)
    trainer.rest()
    assert set(trainer._sessions) == {"inference"}
    np.testing.assert_array_equal(predictor.predict(x), before)
