"""What one virtual device is to learn, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.errors import LaconicError
from laconic.runtime import OptimizerState, TrainResult
from laconic.runtime.batches import (
    Array,
    Inputs,
    Targets,
    check_inputs,
    check_positive,
    check_seed,
    check_targets,
    samples_in,
)
from laconic.runtime.beginning import Beginning
from laconic.runtime.bundle import Bundle
from laconic.schema import Vector

Outcome: TypeAlias = TrainResult | LaconicError
"""What a job gave, or why it gave nothing: one that diverges leaves the others alone."""


@dataclass(frozen=True, slots=True)
class Job:
    """The arguments of `laconic.runtime.Trainer.train`, which explains them."""

    weights: Vector
    x: Inputs
    y: Targets
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    proximal_mu: float = 0.0
    local: Vector | None = None
    control: Vector | None = None
    optimizer: OptimizerState | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """By the names that they have there."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class Ready:
    """A job that has been checked: its data by graph input, and in what steps it goes through them.

    An epoch is `whole` batches of `batch` samples, and one of `rest` samples if that is not 0.
    """

    def __init__(self, bundle: Bundle, job: Job) -> None:
        """Raises as `Trainer.start` does."""
        self.job = job
        self.data: dict[str, Array] = check_inputs(bundle.manifest, job.x)
        self.samples = samples_in(self.data)
        self.data.update(check_targets(bundle.manifest, job.y, self.samples))
        self.epochs = check_positive("number of epochs", job.epochs)
        self.batch = min(check_positive("batch size", job.batch_size), self.samples)
        self.whole, self.rest = divmod(self.samples, self.batch)
        self.steps = self.epochs * (self.whole + (self.rest > 0))
        seed = check_seed(job.seed)
        self.begin = Beginning.of(
            bundle,
            job.weights,
            job.learning_rate,
            seed,
            job.proximal_mu,
            job.local,
            job.control,
            job.optimizer,
        )
        self._rng = np.random.default_rng(seed)
        self.order: NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for jobs that fit into one stack."""
        return self.batch, self.epochs, *(a.shape[1:] for a in self.data.values())

    def shuffle(self) -> None:
        """Begin an epoch: its order of samples is the one that `Trainer.start` draws."""
        self.order = self._rng.permutation(self.samples)
