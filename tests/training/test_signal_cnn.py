"""The built-in network for windows of signals: its size, its layers' names, that it learns."""

from __future__ import annotations

import numpy as np
import pytest

from laconic.errors import ConfigError
from laconic.runtime import Bundle, Trainer
from laconic.training import prepare
from laconic.training.models_signal import LEAST_READINGS, signal_cnn


def test_its_size_is_the_one_that_is_told() -> None:
    bundle = Bundle.read(prepare(signal_cnn(6, 128, 6)))
    assert bundle.schema.size == 9_806
    assert {t.name.split(".")[0] for t in bundle.schema.tensors} == {"conv1", "conv2", "head"}


def test_a_layer_that_stays_on_the_device_does_not_travel() -> None:
    bundle = Bundle.read(prepare(signal_cnn(6, 128, 6), local=["conv1.*"]))
    assert (bundle.schema.size, bundle.local_schema.size) == (8_486, 1_320)


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert signal_cnn(3, 40, 2, seed=1) == signal_cnn(3, 40, 2, seed=1) != signal_cnn(3, 40, 2, seed=2)


@pytest.mark.parametrize("readings", [LEAST_READINGS, LEAST_READINGS + 1, 61, 128])
def test_any_length_that_is_not_too_short_has_logits(readings: int) -> None:
    trainer = Trainer(Bundle.read(prepare(signal_cnn(2, readings, 3))))
    windows = np.zeros((5, 2, readings), np.float32)
    assert np.asarray(trainer.predict(trainer.bundle.initial, windows)).shape == (5, 3)


def test_a_window_that_is_too_short_is_refused() -> None:
    with pytest.raises(ConfigError, match="readings"):
        signal_cnn(2, LEAST_READINGS - 1, 3)


def test_it_tells_a_slow_wave_from_a_quick_one_wherever_they_begin() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 256)
    begin = rng.uniform(0, 2 * np.pi, (256, 3, 1))
    x = np.sin(np.arange(64) * (0.2 + 0.3 * y[:, None, None]) + begin).astype(np.float32)
    trainer = Trainer(Bundle.read(prepare(signal_cnn(3, 64, 2))))
    learnt = trainer.train(
        trainer.bundle.initial, x[:192], y[:192], epochs=4, batch_size=16, learning_rate=0.05, seed=0
    )
    found = trainer.evaluate(learnt.weights, x[192:], y[192:])
    assert found.accuracy is not None
    assert found.accuracy > 0.95
