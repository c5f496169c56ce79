"""What trains on a device: the seam, and the ONNX bundle behind it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from laconic.protocol.messages import Training
from laconic.runtime import Trainer
from laconic.schema import Schema, Vector


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of local training."""

    weights: Vector
    samples: int
    loss_before: float | None
    loss_after: float | None


class Learner(Protocol):
    """Trains a model's flat weights on this device's data."""

    @property
    def schema(self) -> Schema:
        """Order of the weights."""
        ...

    @property
    def bundle(self) -> str:
        """Short hash of the training bundle."""
        ...

    @property
    def initial(self) -> Vector:
        """The weights that come with the bundle: version 0 of the model."""
        ...

    @property
    def samples(self) -> int:
        """How many training samples there are now."""
        ...

    def train(self, weights: Vector, training: Training, seed: int) -> Trained:
        """Train from `weights`; the same arguments and data give the same result."""
        ...


Arrays = tuple[NDArray[Any], NDArray[Any]]


class OnnxLearner:
    """Trains a bundle's graphs on arrays with onnxruntime."""

    def __init__(self, trainer: Trainer, data: Arrays) -> None:
        """`data`: inputs `(samples, ...)` and targets `(samples, ...)` as the bundle's signature has them."""
        self._trainer, self._bundle, self._data = trainer, trainer.bundle, data
        self._stopped = threading.Event()

    @property
    def schema(self) -> Schema:
        return self._bundle.schema

    @property
    def bundle(self) -> str:
        return self._bundle.hash[:16]

    @property
    def initial(self) -> Vector:
        return self._bundle.initial

    @property
    def samples(self) -> int:
        return len(self._data[0])

    def stop(self) -> None:
        """Let training that is under way end at the next stretch of steps: nobody waits for it any more."""
        self._stopped.set()

    def train(self, weights: Vector, training: Training, seed: int) -> Trained:
        x, y = self._data
        result = self._trainer.train(
            weights,
            x,
            y,
            epochs=training.epochs,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            seed=seed,
            should_stop=self._stopped.is_set,
        )
        losses = result.losses
        steps_per_epoch = max(1, len(losses) // training.epochs)
        return Trained(
            weights=result.weights,
            samples=self.samples,
            loss_before=float(np.mean(losses[:steps_per_epoch])) if len(losses) else None,
            loss_after=float(np.mean(losses[-steps_per_epoch:])) if len(losses) else None,
        )
