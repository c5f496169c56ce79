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
    workshop: Workshop,
    count: int,
    parts: Callable[[int], Sequence[Labelled]],
    practice: Practice,
    seed: Callable[[int, int], int],
) -> Iterator[list[Model]]:
    """Train `count` models, each on its own part; the models after round 0, 1 and so on, in the parts' order.

    A round, from 1, is `epochs` passes through the parts of that round, from the weights of the round before;
    a part may be empty. There is no proximal term, which would hold a model to that of others, and no control
    variate. `seed`: of the place in the parts and the round. Raises `ConfigError` for data that the bundle
    does not take.
    """
    bundle = workshop.trainer.bundle
    models = [Model(bundle.initial, bundle.initial_local) for _ in range(count)]
    yield models
    for number in range(1, practice.rounds + 1):
        rate = practice.learning_rate * practice.learning_rate_decay ** (number - 1)
        jobs = {
            place: Job(
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
            for place, (m, part) in enumerate(zip(models, parts(number), strict=True))
            if len(part.y)
        }
        # The longest first: threads that have done with the others do not wait for it.
        order = sorted(jobs, key=lambda i: -len(jobs[i].x))
        outcomes = dict(zip(order, workshop.train([jobs[i] for i in order]), strict=True))
        models = [_after(bundle, m, outcomes[i]) if i in jobs else m for i, m in enumerate(models)]
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
