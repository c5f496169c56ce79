"""Trains, evaluates and predicts with a bundle on onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from laconic.errors import ConfigError, ModelError, NonFinite
from laconic.runtime.batches import (
    Array,
    Chunk,
    Inputs,
    check_inputs,
    check_labels,
    check_positive,
    check_rate,
    check_seed,
    evaluation_batches,
    training_chunks,
)
from laconic.runtime.bundle import Bundle
from laconic.runtime.session import open_session
from laconic.schema import Schema, Vector

Form: TypeAlias = Literal["epoch", "step"]
_GraphName: TypeAlias = Literal["step", "epoch", "evaluation", "inference"]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What local training gave.

    `weights` and `local` are float32 vectors in `bundle.schema` and `bundle.local_schema`; `losses` holds the
    mean loss of each step (float32, before that step's update); `samples` counts samples seen, with repeats.
    """

    weights: Vector
    local: Vector
    losses: NDArray[np.float32]
    samples: int
    steps: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Mean loss, share of right answers, and number of samples of an evaluation."""

    loss: float
    accuracy: float
    samples: int


class Trainer:
    """Runs a bundle's graphs; sessions are opened when first needed and can be shared between threads.

    `form` chooses how training runs: "epoch" hands a stretch of steps to onnxruntime at once, "step" makes
    one call for each step. Both give the same weights up to float32 rounding. `chunk_bytes` bounds the
    buffer into which training data is gathered.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int = 1, form: Form = "epoch", chunk_bytes: int = 4 * 2**20
    ) -> None:
        if form not in ("epoch", "step"):
            raise ConfigError("form of training", value=form, limit=("epoch", "step"))
        self.bundle = bundle
        self._threads = check_positive("number of threads", threads)
        self._form: Form = form
        self._chunk_bytes = check_positive("chunk size in bytes", chunk_bytes)
        self._sessions: dict[_GraphName, Any] = {}
        self._lock = threading.Lock()

    def train(
        self,
        weights: Vector,
        x: Inputs,
        y: Array,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        proximal_mu: float = 0.0,
        local: Vector | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> TrainResult:
        """Train from `weights` on `x`, `y`; each epoch sees every sample once, in an order drawn from `seed`.

        `weights` is a float32 vector in `bundle.schema`, `x` an array of the signature's dtype with samples
        on axis 0, `y` integer labels of shape `(samples,)`. The optimizer's state starts at zero.
        `proximal_mu` pulls towards `weights` (FedProx, Li et al., MLSys 2020, section 3) and needs a bundle
        prepared with `proximal=True`. `local` is the device's own part, `bundle.initial_local` by default.
        `should_stop` is asked between chunks of at most 64 steps.

        The same arguments on the same machine give bit-identical weights. Raises `ConfigError` for data or
        settings, `ModelError` for weights of another size, `NonFinite` for weights that are not finite.
        """
        manifest = self.bundle.manifest
        data = check_inputs(manifest, x)
        samples = len(next(iter(data.values())))
        data["labels"] = check_labels(manifest, y, samples)
        epochs = check_positive("number of epochs", epochs)
        batch_size = min(check_positive("batch size", batch_size), samples)
        rate = np.asarray(check_rate("learning rate", learning_rate), np.float32)
        mu = np.asarray(check_rate("proximal mu", proximal_mu), np.float32)
        if mu and not manifest.proximal:
            raise ConfigError(
                "proximal mu", value=proximal_mu, limit=0, remedy="prepare the bundle with proximal=True"
            )
        start = self._parameters(weights, local)
        constants: dict[str, Array] = {"lr": rate, **self.bundle.frozen}
        if manifest.proximal:
            constants["prox_mu"] = mu
            constants.update({f"ref/{t.name}": start[t.name] for t in self.bundle.schema.tensors})
        run = _Run(self._session(self._form), self._form, self._state(start), constants)

        rng = np.random.default_rng(check_seed(seed))
        losses: list[NDArray[np.float32]] = []
        seen = 0
        stopped = False
        for _ in range(epochs):
            for chunk in training_chunks(data, rng.permutation(samples), batch_size, self._chunk_bytes):
                if stopped := should_stop is not None and should_stop():
                    break
                losses.append(run.advance(chunk))
                seen += int(chunk.feeds["mask"].sum())
            if stopped:
                break
        trained = run.state() if losses else start
        result = TrainResult(
            weights=self.bundle.schema.flatten(trained),
            local=self.bundle.local_schema.flatten(trained),
            losses=np.concatenate(losses) if losses else np.empty(0, np.float32),
            samples=seen,
            steps=sum(map(len, losses)),
        )
        for vector in (result.weights, result.local):
            _check_finite("weights after training", vector, "lower the learning rate or check the data")
        return result

    def evaluate(
        self, weights: Vector, x: Inputs, y: Array, *, batch_size: int = 256, local: Vector | None = None
    ) -> Metrics:
        """Loss and accuracy of `weights` on `x`, `y` (as for `train`).

        Raises as `train` does.
        """
        manifest = self.bundle.manifest
        data = check_inputs(manifest, x)
        samples = len(next(iter(data.values())))
        data["labels"] = check_labels(manifest, y, samples)
        data["mask"] = np.ones(samples, np.float32)
        constants = self._parameters(weights, local) | dict(self.bundle.frozen)
        session = self._session("evaluation")
        total = np.zeros(3, np.float64)
        for feeds in evaluation_batches(data, check_positive("batch size", batch_size)):
            total += _run(session, ["loss_sum", "correct", "count"], {**constants, **feeds})
        loss, right, count = total.tolist()
        return Metrics(loss=loss / count, accuracy=right / count, samples=samples)

    def predict(
        self, weights: Vector, x: Inputs, *, batch_size: int = 256, local: Vector | None = None
    ) -> NDArray[np.float32]:
        """The model's own output for `x`: float32, samples on axis 0.

        Raises as `train` does.
        """
        data = check_inputs(self.bundle.manifest, x)
        constants = self._parameters(weights, local) | dict(self.bundle.frozen)
        session = self._session("inference")
        name = self.bundle.manifest.output.name
        outputs = [
            _run(session, [name], {**constants, **feeds})[0]
            for feeds in evaluation_batches(data, check_positive("batch size", batch_size))
        ]
        return np.concatenate(outputs)

    def _parameters(self, weights: Vector, local: Vector | None) -> dict[str, Array]:
        """Trained parameters by name, as contiguous arrays; the caller's vectors are never written to."""
        local = self.bundle.initial_local if local is None else local
        out: dict[str, Array] = {}
        pairs: tuple[tuple[str, Schema, Vector], ...] = (
            ("weights", self.bundle.schema, weights),
            ("local weights", self.bundle.local_schema, local),
        )
        for thing, schema, vector in pairs:
            if not isinstance(vector, np.ndarray) or vector.dtype != np.float32:
                found = vector.dtype if isinstance(vector, np.ndarray) else type(vector).__name__
                raise ModelError(f"dtype of the {thing}", value=str(found), limit="float32 array")
            named = schema.unflatten(vector)
            _check_finite(thing, vector, "ask for the model again")
            out.update({n: np.ascontiguousarray(a) for n, a in named.items()})
        return out

    def _state(self, start: Mapping[str, Array]) -> dict[str, Array]:
        """What the optimizer changes: trained parameters, and its slots at zero."""
        state = dict(start)
        for slot in self.bundle.manifest.optimizer.slots:
            state.update({f"opt/{slot}/{n}": np.zeros_like(a) for n, a in start.items()})
        return state

    def _session(self, name: _GraphName) -> Any:
        with self._lock:
            if name not in self._sessions:
                graph = self.bundle.parts[name]
                self._sessions[name] = open_session(graph, name=name, threads=self._threads)
            return self._sessions[name]


class _Run:
    """One training run: its state lives in two sets of onnxruntime buffers, read from one, written to the
    other, so that between steps nothing is copied to numpy or allocated anew."""

    def __init__(
        self, session: Any, form: Form, state: Mapping[str, Array], constants: Mapping[str, Array]
    ) -> None:
        value = ort.OrtValue.ortvalue_from_numpy
        self._session = session
        self._form = form
        self._shapes = {name: a.shape for name, a in state.items()}
        # Copies: onnxruntime may use an array's memory in place, and these are written to.
        self._kept = [
            {n: a.copy() for n, a in state.items()},
            {n: np.empty_like(a) for n, a in state.items()},
        ]
        self._buffers = [{n: value(a) for n, a in half.items()} for half in self._kept]
        self._constants = {n: value(np.ascontiguousarray(a).reshape(a.shape)) for n, a in constants.items()}
        self._alive = constants
        self._current = 0

    def advance(self, chunk: Chunk) -> NDArray[np.float32]:
        """Run the chunk's steps; the mean loss of each, float32 of shape `(steps,)`."""
        if self._form == "epoch":
            return self._call(chunk.feeds).reshape(chunk.steps)
        rows = [self._call({n: a[i] for n, a in chunk.feeds.items()}).reshape(1) for i in range(chunk.steps)]
        return np.concatenate(rows)

    def state(self) -> dict[str, Array]:
        """The state as it stands, by name."""
        return {n: v.numpy().reshape(self._shapes[n]) for n, v in self._buffers[self._current].items()}

    def _call(self, feeds: Mapping[str, Array]) -> NDArray[np.float32]:
        old, new = self._buffers[self._current], self._buffers[1 - self._current]
        binding = self._session.io_binding()
        try:
            for name, array in feeds.items():
                binding.bind_cpu_input(name, array)
            for name, ort_value in (*self._constants.items(), *old.items()):
                binding.bind_ortvalue_input(name, ort_value)
            for name, ort_value in new.items():
                binding.bind_ortvalue_output(f"{name}:new", ort_value)
            binding.bind_output("loss")
            self._session.run_with_iobinding(binding)
        except Exception as e:  # onnxruntime's exceptions share no base below Exception
            raise ModelError("onnxruntime could not run a training step", value=str(e)) from e
        self._current = 1 - self._current
        loss: NDArray[np.float32] = binding.get_outputs()[-1].numpy()
        return loss


def _run(session: Any, outputs: list[str], feeds: Mapping[str, Array]) -> list[Any]:
    try:
        result: list[Any] = session.run(outputs, dict(feeds))
    except Exception as e:  # onnxruntime's exceptions share no base below Exception
        raise ModelError("onnxruntime could not run the model", value=str(e)) from e
    return result


def _check_finite(thing: str, vector: Vector, remedy: str) -> None:
    if not np.isfinite(vector).all():
        bad = int(np.count_nonzero(~np.isfinite(vector)))
        raise NonFinite(thing, value=f"{bad} of {vector.size} not finite", remedy=remedy)
