"""The ONNX learner: what stays on the device between rounds, and what does not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from laconic.edge_sdk.data import ExampleBuffer
from laconic.edge_sdk.learner import Interrupted, OnnxLearner, Trained
from laconic.protocol.messages import Training
from laconic.runtime import Bundle, Checkpoint, OptimizerState, Trainer
from laconic.training import adam, prepare
from laconic.training.models import digits_cnn

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 1, 8, 8)).astype(np.float32)
Y = RNG.integers(0, 10, 24)
ROUND = Training(epochs=1, batch_size=8, learning_rate=0.01, keep_optimizer=True)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(Bundle.read(prepare(digits_cnn(), optimizer=adam(), local=["dense2.*"], proximal=True)))


def test_local_weights_and_optimizer_go_on_where_they_were(trainer: Trainer) -> None:
    bundle, learner = trainer.bundle, OnnxLearner(trainer, (X, Y))
    first = learner.train(bundle.initial, ROUND, 1, b"")
    second = learner.train(first.weights, ROUND, 2, first.private)

    settings = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01}
    one = trainer.train(bundle.initial, X, Y, seed=1, **settings)
    two = trainer.train(one.weights, X, Y, seed=2, local=one.local, optimizer=one.optimizer, **settings)
    assert second.weights.tobytes() == two.weights.tobytes()
    assert learner.local(second.private).tobytes() == two.local.tobytes()
    assert two.optimizer.step == 6


def test_the_coordinator_decides_whether_the_optimizer_begins_at_zero(trainer: Trainer) -> None:
    learner = OnnxLearner(trainer, (X, Y))
    kept = learner.train(trainer.bundle.initial, ROUND, 1, b"")
    anew = msgspec.structs.replace(ROUND, keep_optimizer=False)
    without = learner.train(kept.weights, anew, 2, kept.private)
    due = trainer.train(
        kept.weights,
        X,
        Y,
        epochs=1,
        batch_size=8,
        learning_rate=0.01,
        seed=2,
        local=learner.local(kept.private),
        optimizer=OptimizerState.initial(trainer.bundle),
    )
    assert without.weights.tobytes() == due.weights.tobytes()
    again = learner.train(kept.weights, ROUND, 2, without.private)
    assert again.weights.tobytes() != learner.train(kept.weights, ROUND, 2, kept.private).weights.tobytes()


def test_the_proximal_term_pulls(trainer: Trainer) -> None:
    learner, start = OnnxLearner(trainer, (X, Y)), trainer.bundle.initial
    free = learner.train(start, ROUND, 1, b"").weights - start
    pulled = learner.train(start, msgspec.structs.replace(ROUND, proximal_mu=50.0), 1, b"").weights - start
    assert np.linalg.norm(pulled) < np.linalg.norm(free)


@pytest.mark.parametrize("private", [b"\xc1", b"\x92\xa0", msgspec.msgpack.encode([b"abc", b"def"])])
def test_what_cannot_be_read_begins_anew(trainer: Trainer, private: bytes) -> None:
    learner = OnnxLearner(trainer, (X, Y))
    due = learner.train(trainer.bundle.initial, ROUND, 1, b"")
    found = learner.train(trainer.bundle.initial, ROUND, 1, private)
    assert found.weights.tobytes() == due.weights.tobytes()
    assert learner.local(private).tobytes() == trainer.bundle.initial_local.tobytes()


class Slices:
    """Training yields after so many stretches."""

    def __init__(self, stretches: int) -> None:
        self._stretches, self._left = stretches, 0

    def begin(self) -> None:
        self._left = self._stretches

    def must_yield(self) -> bool:
        return False

    def should_yield(self) -> bool:
        self._left -= 1
        return self._left < 1


def test_examples_that_come_between_two_slices_are_for_the_next_training(
    trainer: Trainer, tmp_path: Path
) -> None:
    """Recorded: with a buffer that grew, each slice began anew, and no training of several ever ended."""
    training = Training(epochs=4, batch_size=8, learning_rate=0.01)
    alone = OnnxLearner(trainer, (X, Y)).train(trainer.bundle.initial, training, 1, b"")
    assert isinstance(alone, Trained)
    with ExampleBuffer(tmp_path / "buffer", trainer) as buffer:
        for x, y in zip(X, Y, strict=True):
            buffer.add(x, y)
        learner = OnnxLearner(trainer, buffer, Slices(1))
        slices, checkpoint = 0, b""
        while isinstance(it := learner.train(learner.initial, training, 1, b"", checkpoint), Interrupted):
            checkpoint, slices = it.checkpoint, slices + 1
            assert slices < 20
            buffer.add(X[0], Y[0])
        assert slices >= 3
        assert it.weights.tobytes() == alone.weights.tobytes()
        assert it.samples == len(X)
        # The next training has them all.
        later = learner.train(learner.initial, training, 2, b"")
        assert isinstance(later, Interrupted)
        assert Checkpoint.decode(later.checkpoint).run.data_samples == len(X) + slices
