"""A training run in progress: driven by whoever iterates over it, and fit to predict from any thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from laconic.errors import LocalProtocolError
from laconic.runtime.batches import Inputs
from laconic.runtime.buffers import StateBuffers
from laconic.runtime.bundle import Bundle
from laconic.runtime.checkpoint import Checkpoint, Run, state_schema
from laconic.runtime.chunks import Chunk
from laconic.runtime.control import Correction
from laconic.runtime.finite import check_finite
from laconic.runtime.inference import Outputs
from laconic.runtime.optimizer_state import OptimizerState
from laconic.runtime.pace import Pace
from laconic.schema import Vector


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
        predict: Callable[[Mapping[str, object], Inputs], Outputs],
        correction: Correction,
        pace: Pace,
        run: Callable[[], Run] | None = None,
        resumed: Checkpoint | None = None,
    ) -> None:
        """`run` tells what the result depends on; a run over a stream cannot tell."""
        self._bundle = bundle
        self._buffers = buffers
        self._chunks = chunks
        self._predict = predict
        self._correction = correction
        self._pace = pace
        self._run = run
        self._losses: list[NDArray[np.float32]] = []
        self._steps = self._samples = 0
        if resumed is not None:
            # A copy: the checkpoint's own keeps all of the file's bytes alive.
            self._losses.append(resumed.losses.copy())
            self._steps, self._samples = resumed.steps, resumed.run.samples_after(resumed.steps)

    def __iter__(self) -> Iterator[Progress]:
        began = time.perf_counter()
        while (chunk := next(self._chunks, None)) is not None:
            losses = self._buffers.advance(chunk)
            self._pace.took(chunk.steps, chunk.batch, time.perf_counter() - began)
            self._losses.append(losses)
            self._steps += chunk.steps
            self._samples += chunk.steps * chunk.batch
            # Gone before the next one is made.
            del chunk
            yield Progress(losses, self._steps, self._samples)
            # The time that others take in between is not the run's.
            began = time.perf_counter()

    def predict(self, x: Inputs) -> Outputs:
        """The model's output for `x` with the newest weights: an array, or arrays by name for several
        outputs.

        Raises `ConfigError` for data that does not fit.
        """
        with self._buffers.reading() as values:
            return self._predict(values, x)

    def checkpoint(self) -> Checkpoint:
        """What the run needs to go on later (`Trainer.start`), as of the last turn of the iteration.

        To be asked for between two turns, by the thread that iterates. A copy of the state, which is as
        large as the weights, local ones too, times one plus the number of the optimizer's slots. Raises
        `NonFinite` when training has gone astray, `LocalProtocolError` for a run over a stream, which cannot
        be had a second time.
        """
        if self._run is None:
            raise LocalProtocolError("a run over a stream has no checkpoint", remedy="train on arrays")
        with self._buffers.state() as state:
            vector = state_schema(self._bundle).flatten(state)
        _check_trained(vector)
        return Checkpoint(self._run(), vector, self._all_losses())

    def result(self) -> TrainResult:
        """What the run has given so far. Raises `NonFinite` when training has gone astray."""
        schema = self._bundle.weight_schema
        with self._buffers.state() as state:
            slots = {
                slot: schema.flatten({t.name: state[f"opt/{slot}/{t.name}"] for t in schema.tensors})
                for slot in self._bundle.manifest.optimizer.slots
            }
            control = self._correction.after(state, self._steps)
            result = TrainResult(
                weights=self._bundle.schema.flatten({**state, **self._correction.travelling(control)}),
                local=self._bundle.local_schema.flatten(state),
                losses=self._all_losses(),
                samples=self._samples,
                steps=self._steps,
                optimizer=OptimizerState(slots, int(state["step"]) if "step" in state else 0),
                control=control,
            )
        for vector in (result.weights, result.local, result.control, *slots.values()):
            _check_trained(vector)
        return result

    def _all_losses(self) -> NDArray[np.float32]:
        return np.concatenate(self._losses) if self._losses else np.empty(0, np.float32)


def _check_trained(vector: Vector) -> None:
    check_finite("weights after training", vector, "lower the learning rate or check the data")
