"""A task: a data set, the model that learns it, and how a device trains for one round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from _codec.data import DataSet, Part, digits, har, mnist
from _codec.models import Drawn, digits_mlp, har_cnn, initial, lenet, mlp
from laconic.runtime import Bundle, Trainer
from laconic.schema import Schema, Vector
from laconic.training import prepare
from laconic.training.models import digits_cnn

TaskName = Literal["digits", "mnist", "har", "mlp", "digits_mlp"]
OptimizerName = Literal["sgd", "adam"]

EPOCHS, SAMPLES, BATCH = 3, 64, 16
"""Local epochs of a round, samples of an epoch (drawn anew for each, or all there are), batch size."""

RATES: dict[OptimizerName, float] = {"sgd": 0.1, "adam": 0.0005}
"""Learning rates."""

_SOURCES: dict[TaskName, tuple[Callable[[], DataSet], Callable[[], bytes]]] = {
    "digits": (digits, digits_cnn),
    "mnist": (mnist, lenet),
    "har": (har, har_cnn),
    "mlp": (mnist, mlp),
    "digits_mlp": (digits, digits_mlp),
}


@dataclass(frozen=True)
class Task:
    """One model's bundle with its data; `trainer` holds the one session that all devices share."""

    name: TaskName
    data: DataSet
    trainer: Trainer

    @property
    def schema(self) -> Schema:
        """Of the vectors that travel."""
        return self.trainer.bundle.schema

    def initial(self, seed: int, drawn: Drawn = "he") -> Vector:
        """The weights that a run with this seed starts from."""
        return initial(self.schema, seed, drawn)

    def change(self, weights: Vector, part: Part, rate: float, rng: np.random.Generator) -> Vector:
        """What one round of local training on `part` adds to `weights`, float32, shape `(schema.size,)`.

        The optimizer starts anew in every round, as on a device that keeps no state.
        """
        return self.learn(weights, part, rate, rng)[0]

    def learn(
        self, weights: Vector, part: Part, rate: float, rng: np.random.Generator
    ) -> tuple[Vector, float]:
        """The same, with the mean loss in the first epoch: what the product's devices report."""
        order = np.concatenate([rng.permutation(len(part))[:SAMPLES] for _ in range(EPOCHS)])
        chosen = part.at(order)
        training = self.trainer.start_stream(
            weights, [(chosen.x, chosen.y)], batch_size=BATCH, learning_rate=rate, seed=0
        )
        for _ in training:
            pass
        result = training.result()
        steps = max(1, len(result.losses) // EPOCHS)
        return result.weights - weights, float(result.losses[:steps].mean())

    def accuracy(self, weights: Vector) -> float:
        """Share of the test set that `weights` tell right."""
        found = self.trainer.evaluate(weights, self.data.test.x, self.data.test.y).accuracy
        assert found is not None
        return found


@cache
def load(name: TaskName, optimizer: OptimizerName = "sgd") -> Task:
    """A task with its bundle prepared by `laconic.training`, kept for the life of the process."""
    data, model = _SOURCES[name]
    bundle = Bundle.read(prepare(model(), optimizer=optimizer))
    return Task(name, data(), Trainer(bundle))
