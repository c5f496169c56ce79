"""Training without communication: each device alone, and all data in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from laconic.device_sim.learning.job import Job, Outcome
from laconic.device_sim.learning.workshop import Workshop
from laconic.errors import NonFinite
from laconic.runtime import Bundle, OptimizerState
from laconic.runtime.batches import Array
from laconic.schema import Vector


class Labelled(Protocol):
    """Labelled examples, samples on axis 0 of both."""

    @property
    def x(self) -> Array: ...
    @property
    def y(self) -> Array: ...


@dataclass(frozen=True)
class Practice:
    """What a device does in each round, as the coordinator asks for it."""

    rounds: int
    epochs: int
    batch_size: int
    learning_rate: float
    learning_rate_decay: float = 1.0
    """Factor from one round to the next."""
    keep_optimizer: bool = False


@dataclass(frozen=True)
class Model:
    """What training has come to."""

    weights: Vector
    local: Vector
    """Weights that never leave a device (`Bundle.local_schema`)."""
    optimizer: OptimizerState | None = None
    losses: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """Mean loss of each step of the last round, before that step."""
    failed: int = 0
    """Rounds that diverged: the model stayed as it was."""


def practised(
    workshop: Workshop, parts: Sequence[Labelled], practice: Practice, seed: Callable[[int, int], int]
) -> Iterator[list[Model]]:
    """Train a model on each part for itself; the models after round 0, 1 and so on, in the parts' order.

    A round is `epochs` passes through the part, from the weights of the round before. There is no proximal
    term, which would hold a model to that of others, and no control variate. `seed`: of the place in `parts`
    and the round, from 1. Raises `ConfigError` for data that the bundle does not take.
    """
    bundle = workshop.trainer.bundle
    models = [Model(bundle.initial, bundle.initial_local) for _ in parts]
    yield models
    for number in range(1, practice.rounds + 1):
        rate = practice.learning_rate * practice.learning_rate_decay ** (number - 1)
        jobs = [
            Job(
                m.weights,
                part.x,
                part.y,
                practice.epochs,
                practice.batch_size,
                rate,
                seed(place, number),
                local=m.local,
                optimizer=m.optimizer if practice.keep_optimizer else None,
            )
            for place, (m, part) in enumerate(zip(models, parts, strict=True))
        ]
        # The longest first: threads that have done with the others do not wait for it.
        order = sorted(range(len(jobs)), key=lambda i: -len(jobs[i].x))
        outcomes = dict(zip(order, workshop.train([jobs[i] for i in order]), strict=True))
        models = [_after(bundle, models[i], outcomes[i]) for i in range(len(jobs))]
        yield models


def _after(bundle: Bundle, model: Model, outcome: Outcome) -> Model:
    if isinstance(outcome, NonFinite):
        return replace(model, losses=model.losses[:0], failed=model.failed + 1)
    if isinstance(outcome, Exception):
        raise outcome
    weights = outcome.weights
    controls = bundle.schema.controls
    if controls.start < controls.stop:
        # They would correct towards what others have seen.
        weights = weights.copy()
        weights[controls] = bundle.initial[controls]
    return Model(weights, outcome.local, outcome.optimizer, outcome.losses, model.failed)
