"""Softmax regression on the digits in numpy: a real learner that trains in milliseconds."""

from __future__ import annotations

from functools import cache

import numpy as np
from _codec.data import DataSet, Part, digits
from numpy.typing import NDArray

from laconic.coordinator.advance import Score
from laconic.coordinator.campaign import Subject
from laconic.edge_sdk.learner import Trained
from laconic.protocol.messages import Training
from laconic.schema import Schema, TensorSpec, Vector

SCHEMA = Schema((TensorSpec("w", (64, 10)), TensorSpec("b", (10,))))
BUNDLE = "d1" * 8


class Softmax:
    """Plain SGD on this device's samples. See `laconic.edge_sdk.learner.Learner`."""

    schema = SCHEMA
    bundle = BUNDLE

    def __init__(self, part: Part) -> None:
        self._x, self._y = part.x.reshape(len(part), -1), part.y

    @property
    def initial(self) -> Vector:
        return np.zeros(SCHEMA.size, np.float32)

    @property
    def samples(self) -> int:
        return len(self._y)

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        w, rng, losses = weights.copy(), np.random.default_rng(seed), []
        for _ in range(training.epochs):
            order = rng.permutation(self.samples)
            for start in range(0, self.samples, training.batch_size):
                batch = order[start : start + training.batch_size]
                x, y = self._x[batch], self._y[batch]
                p = probabilities(w, x)
                losses.append(float(-np.log(p[np.arange(len(y)), y] + 1e-9).mean()))
                p[np.arange(len(y)), y] -= 1
                step = np.concatenate([(x.T @ p).ravel(), p.sum(0)]) / len(y)
                w = (w - training.learning_rate * step).astype(np.float32)
        return Trained(w, self.samples, losses[0], losses[-1])


def probabilities(weights: Vector, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each class, for samples of shape `(n, 64)`."""
    z = x @ weights[:640].reshape(64, 10) + weights[640:]
    e = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True), np.float32)


@cache
def data() -> DataSet:
    """The digits, read once in a process."""
    return digits()


def evaluate(weights: Vector) -> Score:
    """Accuracy on what nobody trains on."""
    test = data().test
    p = probabilities(weights, test.x.reshape(len(test), -1))
    right = p[np.arange(len(test)), test.y]
    return Score(float(-np.log(right + 1e-9).mean()), float((p.argmax(1) == test.y).mean()))


def subject() -> Subject:
    """What a campaign trains."""
    return Subject(BUNDLE, SCHEMA, np.zeros(SCHEMA.size, np.float32), evaluate)
