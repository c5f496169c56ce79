"""What trains on a device: the seam, and the ONNX bundle behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from laconic.edge_sdk.data import Examples, Snapshot, samples_of, snapshot_of, source_of
from laconic.edge_sdk.records import UNREADABLE
from laconic.errors import CheckpointMismatch, LaconicError, NonFinite, WireError
from laconic.protocol.messages import Training
from laconic.runtime import Checkpoint, OptimizerState, Trainer, TrainResult
from laconic.runtime import Training as TrainingRun
from laconic.schema import Schema, Vector


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of local training."""

    weights: Vector
    samples: int
    loss_before: float | None
    loss_after: float | None
    private: bytes = b""
    """What the learner wants to see again next time and nobody else may see."""
    losses: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """Mean loss of each step, before that step, as far as the learner tells."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Local training that was told to yield."""

    checkpoint: bytes
    """What it needs to go on later; empty if it has to begin anew."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How good a model is on this device's data."""

    loss: float
    accuracy: float | None


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
        """How many training samples there are, as far as is known without looking at them."""
        ...

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained | Interrupted:
        """Train from `weights`; the same arguments and data give the same result, however often it is
        interrupted.

        `private` is what the training before gave under that name, empty at first; `checkpoint` what an
        interrupted one left. One that does not fit any more, as the data are others, is passed over.
        """
        ...

    def measure(self, weights: Vector, private: bytes) -> Measured | Interrupted:
        """How good `weights` are on this device's data, before they are trained on it."""
        ...


@runtime_checkable
class ChangingLearner(Protocol):
    """A learner whose examples change by the clock of whoever asks: under a virtual one, work is done earlier
    or later than it begins."""

    def at(self, now: float) -> Learner:
        """The learner with the examples of a time; it stays as it is."""
        ...


class Patience(Protocol):
    """How long training may go on."""

    def begin(self) -> None:
        """A stretch of work begins."""
        ...

    def must_yield(self) -> bool:
        """Asked many times a second: whether work is to end."""
        ...

    def should_yield(self) -> bool:
        """Whether work that can be written down is to end: also if it has gone on for long enough."""
        ...


class _Endless:
    def begin(self) -> None:
        """Nothing is counted."""

    def must_yield(self) -> bool:
        return False

    def should_yield(self) -> bool:
        return False


class _Private(msgspec.Struct, array_like=True, frozen=True):
    """Weights that stay on the device, the optimizer's state (`OptimizerState.encode`), and the device's own
    control variate with the samples behind it."""

    local: bytes
    optimizer: bytes
    control: bytes = b""
    samples: int = 0


class OnnxLearner:
    """Trains a bundle's graphs on the device's examples with onnxruntime."""

    def __init__(self, trainer: Trainer, data: Examples, patience: Patience | None = None) -> None:
        """`data`: arrays `(samples, ...)` of inputs and targets as the bundle's signature has them, or
        anything else that `laconic.edge_sdk.data.source_of` takes.

        Raises `DataError` for what cannot be used.
        """
        self._trainer, self._bundle = trainer, trainer.bundle
        self._source = source_of(data, trainer.bundle.manifest)
        self._patience = patience or _Endless()
        self._interrupted: tuple[bytes, Snapshot] | None = None
        """The checkpoint of training that was told to yield, and the examples that it goes on with."""

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
        return samples_of(self._source)

    def local(self, private: bytes) -> Vector:
        """The weights that stay on the device: those of the last training, or the bundle's own."""
        return self._recalled(private)[0]

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained | Interrupted:
        self._patience.begin()
        data = self._taken_up(checkpoint) or self._taken()
        local, optimizer = self._recalled(private)
        control, behind = self._recalled_control(private)
        # What nobody stops leaves no checkpoint, and all examples are read for their tag.
        tag = data.tag if checkpoint or not isinstance(self._patience, _Endless) else b""

        def start(resume: Checkpoint | None) -> TrainingRun:
            return self._trainer.start(
                weights,
                data.x,
                data.y,
                epochs=training.epochs,
                batch_size=training.batch_size,
                learning_rate=training.learning_rate,
                seed=seed % 2**63,
                proximal_mu=training.proximal_mu,
                local=local,
                control=control,
                optimizer=optimizer if training.keep_optimizer else None,
                data_tag=tag,
                resume=resume,
            )

        run = _resumed(start, checkpoint)
        for _ in run:
            if self._patience.should_yield():
                left = run.checkpoint().encode()
                self._interrupted = left, data
                return Interrupted(left)
        result = run.result()
        losses = result.losses
        steps_per_epoch = max(1, len(losses) // training.epochs)
        return Trained(
            weights=self._reweighed(result.weights, control, behind, data.samples),
            samples=data.samples,
            loss_before=float(np.mean(losses[:steps_per_epoch])) if len(losses) else None,
            loss_after=float(np.mean(losses[-steps_per_epoch:])) if len(losses) else None,
            private=self._remembered(result, data.samples, keep_optimizer=training.keep_optimizer),
            losses=losses,
        )

    def measure(self, weights: Vector, private: bytes) -> Measured | Interrupted:
        self._patience.begin()
        data, local = self._taken(), self._recalled(private)[0]
        metrics = self._trainer.evaluate(
            weights, data.x, data.y, local=local, should_stop=self._patience.must_yield
        )
        if metrics.samples < data.samples:
            return Interrupted(b"")
        return Measured(metrics.loss, metrics.accuracy)

    def rest(self) -> None:
        """Let go of what only the next training needs, on the thread that trains."""
        self._interrupted = None
        self._trainer.rest()

    def _taken(self) -> Snapshot:
        """The examples of now: one training works on one of these from end to end.

        Raises `DataError`.
        """
        return snapshot_of(self._source)

    def _taken_up(self, checkpoint: bytes) -> Snapshot | None:
        """The examples of the training that left a checkpoint, if that was the last one and in this life.

        By those of now, of which there may be more with each slice, it would begin anew without end.
        """
        interrupted, self._interrupted = self._interrupted, None
        return interrupted[1] if interrupted is not None and interrupted[0] == checkpoint else None

    def _remembered(self, result: TrainResult, samples: int, *, keep_optimizer: bool) -> bytes:
        optimizer = result.optimizer.encode(self._bundle) if keep_optimizer else b""
        local, control = (v.astype("<f4").tobytes() for v in (result.local, result.control))
        if not (optimizer or local or control):
            return b""
        behind = samples if control else 0
        return msgspec.msgpack.encode(_Private(local, optimizer, control, behind))

    def _reweighed(self, weights: Vector, control: Vector | None, behind: int, samples: int) -> Vector:
        """`weights` with a change of the control variate that is right in sums weighted by samples.

        The coordinator has n c_i of a device whose c_i went out with n samples; with m now, what it lacks is
        m c_i' - n c_i, that is m times c_i' - n / m c_i.
        """
        if control is None or behind == samples:
            return weights
        weights = weights.copy()
        weights[self.schema.controls] += np.float32(1 - behind / samples) * control
        return weights

    def _recalled_control(self, private: bytes) -> tuple[Vector | None, int]:
        """The device's own control variate, if it has one, and the samples behind it."""
        try:
            kept = msgspec.msgpack.decode(private, type=_Private)
        except UNREADABLE:
            return None, 0
        size = self._bundle.control_schema.size
        if not size or len(kept.control) != 4 * size:
            return None, 0
        return np.frombuffer(kept.control, "<f4").astype(np.float32), kept.samples

    def _recalled(self, private: bytes) -> tuple[Vector, OptimizerState | None]:
        """What earlier training left; what cannot be used (it was another program's) begins anew."""
        bundle = self._bundle
        local, optimizer = bundle.initial_local, None
        try:
            kept = msgspec.msgpack.decode(private, type=_Private)
            if len(kept.local) == 4 * bundle.local_schema.size:
                local = np.frombuffer(kept.local, "<f4").astype(np.float32)
            if kept.optimizer:
                optimizer = OptimizerState.decode(kept.optimizer, bundle)
        except (*UNREADABLE, LaconicError):
            pass
        return local, optimizer


def _resumed(start: Callable[[Checkpoint | None], TrainingRun], checkpoint: bytes) -> TrainingRun:
    """The run from its checkpoint, or from its beginning if that is no longer, or never was, of this run."""
    if checkpoint:
        try:
            return start(Checkpoint.decode(checkpoint))
        except (WireError, CheckpointMismatch, NonFinite):
            pass
    return start(None)
