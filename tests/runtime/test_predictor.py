"""Weights that lie ready to be predicted with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from unlike import X, unlike

from laconic.errors import ConfigError, ModelError, NonFinite
from laconic.runtime import Bundle, Trainer


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return unlike(local=True, scaffold=True)


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_a_predictor_says_what_predict_says(bundle: Bundle, batch_size: int) -> None:
    trainer: Any = Trainer(bundle)
    local = bundle.initial_local + np.float32(0.5)
    predictor = trainer.predictor(bundle.initial, local)
    due = trainer.predict(bundle.initial, X, local=local, batch_size=batch_size)
    assert np.array_equal(predictor.predict(X, batch_size=batch_size), due)
    assert not np.array_equal(trainer.predictor(bundle.initial).predict(X), predictor.predict(X))


def test_threads_share_one_and_each_keeps_its_own_answer(bundle: Bundle) -> None:
    trainer: Any = Trainer(bundle)
    predictors = [trainer.predictor(bundle.initial * np.float32(n)) for n in (1, 2)]
    due = [[p.predict(X[i : i + 1 + i % 5]) for i in range(25)] for p in predictors]

    def ask(n: int) -> Any:
        i, which = n % 25, n % 2
        return np.array_equal(predictors[which].predict(X[i : i + 1 + i % 5]), due[which][i])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(200)))


def test_an_answer_outlives_the_next_one_and_the_predictor(bundle: Bundle) -> None:
    predictor = Trainer(bundle).predictor(bundle.initial)
    first: Any = predictor.predict(X)
    kept = first.copy()
    predictor.predict(X[::-1].copy())
    del predictor
    assert np.array_equal(first, kept)


def test_what_cannot_be_used_is_told_where_it_is_given(bundle: Bundle) -> None:
    trainer = Trainer(bundle)
    with pytest.raises(ModelError, match="shape of the flat vector"):
        trainer.predictor(bundle.initial[1:])
    with pytest.raises(NonFinite, match="weights"):
        trainer.predictor(np.full_like(bundle.initial, np.inf))
    predictor: Any = trainer.predictor(bundle.initial)
    with pytest.raises(ConfigError, match="shape of input"):
        predictor.predict(X[:, 1:])
    with pytest.raises(ConfigError, match="batch size"):
        predictor.predict(X, batch_size=0)
