"""A training run in progress: driven by whoever iterates over it, and fit to predict from any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from laconic.errors import NonFinite
from laconic.runtime.batches import Array, Chunk, Inputs
from laconic.runtime.buffers import StateBuffers
from laconic.runtime.bundle import Bundle
from laconic.runtime.control import Correction
from laconic.runtime.optimizer_state import OptimizerState
from laconic.schema import Vector

Predictor = Callable[[Mapping[str, object], Inputs], "NDArray[np.float32] | dict[str, Array]"]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What local training gave.

    `weights` and `local` are float32 vectors in `bundle.schema` and `bundle.local_schema`; `losses` holds the
    mean loss of each step (float32, before that step's update); `samples` counts samples seen, with repeats.
    `control` is the device's own control variate, in `bundle.control_schema`; those in `weights` are the
    fleet's of the start plus the change of the own one, so that the update is their difference everywhere.
    """

    weights: Vector
    local: Vector
    losses: NDArray[np.float32]
    samples: int
    steps: int
    optimizer: OptimizerState = field(default_factory=OptimizerState)
    control: Vector = field(default_factory=lambda: np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Progress:
    """One stretch of steps: their mean losses (float32), and the steps and samples of the run so far."""

    losses: NDArray[np.float32]
    steps: int
    samples: int


class Training:
    """A run over chunks of data; each turn of the iteration trains on one chunk.

    Stop by not asking for more. `predict` and `result` use the weights of the last finished call, at any
    time; `predict` from any thread, also while a step runs.
    """

    def __init__(
        self,
        bundle: Bundle,
        buffers: StateBuffers,
        chunks: Iterator[Chunk],
        predictor: Predictor,
        correction: Correction,
    ) -> None:
        self._bundle = bundle
        self._buffers = buffers
        self._chunks = chunks
        self._predictor = predictor
        self._correction = correction
        self._losses: list[NDArray[np.float32]] = []
        self._samples = 0

    def __iter__(self) -> Iterator[Progress]:
        while (chunk := next(self._chunks, None)) is not None:
            losses = self._buffers.advance(chunk)
            self._losses.append(losses)
            self._samples += chunk.steps * chunk.batch
            # Gone before the next one is made.
            del chunk
            yield Progress(losses, sum(map(len, self._losses)), self._samples)

    def predict(self, x: Inputs) -> NDArray[np.float32] | dict[str, Array]:
        """The model's output for `x` with the newest weights: an array, or arrays by name for several
        outputs.

        Raises `ConfigError` for data that does not fit.
        """
        with self._buffers.reading() as values:
            return self._predictor(values, x)

    def result(self) -> TrainResult:
        """What the run has given so far. Raises `NonFinite` when training has gone astray."""
        schema = self._bundle.weight_schema
        steps = sum(map(len, self._losses))
        with self._buffers.state() as state:
            slots = {
                slot: schema.flatten({t.name: state[f"opt/{slot}/{t.name}"] for t in schema.tensors})
                for slot in self._bundle.manifest.optimizer.slots
            }
            control = self._correction.after(state, steps)
            result = TrainResult(
                weights=self._bundle.schema.flatten({**state, **self._correction.travelling(control)}),
                local=self._bundle.local_schema.flatten(state),
                losses=np.concatenate(self._losses) if self._losses else np.empty(0, np.float32),
                samples=self._samples,
                steps=steps,
                optimizer=OptimizerState(slots, int(state["step"]) if "step" in state else 0),
                control=control,
            )
        for vector in (result.weights, result.local, result.control, *slots.values()):
            check_finite("weights after training", vector, "lower the learning rate or check the data")
        return result


def check_finite(thing: str, vector: Vector, remedy: str) -> None:
    """Raise `NonFinite` unless every element is finite."""
    if not np.isfinite(vector).all():
        bad = int(np.count_nonzero(~np.isfinite(vector)))
        raise NonFinite(thing, value=f"{bad} of {vector.size} not finite", remedy=remedy)
