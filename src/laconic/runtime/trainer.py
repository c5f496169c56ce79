"""Trains, evaluates and predicts with a bundle on onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from laconic.errors import ConfigError, ModelError
from laconic.runtime.batches import (
    Array,
    Chunk,
    Inputs,
    Targets,
    check_inputs,
    check_positive,
    check_rate,
    check_seed,
    check_targets,
    evaluation_batches,
    stream_chunks,
    training_chunks,
)
from laconic.runtime.buffers import Form, StateBuffers
from laconic.runtime.bundle import Bundle
from laconic.runtime.control import Correction
from laconic.runtime.graph_types import check_graph_types
from laconic.runtime.optimizer_state import OptimizerState
from laconic.runtime.session import open_session
from laconic.runtime.training import Training, TrainResult, check_finite
from laconic.schema import Schema, Vector

_GraphName: TypeAlias = Literal["step", "epoch", "evaluation", "inference"]

Outputs: TypeAlias = "NDArray[np.float32] | dict[str, Array]"
"""One array for a model with one output, else arrays by output name; samples on axis 0."""

Stream: TypeAlias = Iterable[tuple[Inputs, Targets]]
"""Groups of labelled samples of any size, such as a data loader gives."""

LARGE_STATE_BYTES = 4 * 2**20
"""Where a step in a call of its own is as fast as an epoch in one. A Scan holds two more copies of the state;
a call costs some 15 microseconds, which is a quarter of a step with 0.1 million parameters at batch 1, and
cannot be told from noise with 1.7 million."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Mean loss, other metrics by name, and number of samples of an evaluation."""

    loss: float
    samples: int
    values: Mapping[str, float]

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None where the loss is not one of classification."""
        return self.values.get("accuracy")


class Trainer:
    """Runs a bundle's graphs; sessions are opened when first needed and can be shared between threads.

    `form` chooses how training runs: "epoch" hands a stretch of steps to onnxruntime at once, "step" makes
    one call for each step. Both give the same weights up to float32 rounding. By default a state of up to
    `LARGE_STATE_BYTES` is trained by the epoch, and a larger one by the step, in a session that spares
    memory. `chunk_bytes` bounds the buffer into which training data is gathered.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        form: Form | None = None,
        chunk_bytes: int = 2**18,
    ) -> None:
        if form not in ("epoch", "step", None):
            raise ConfigError("form of training", value=form, limit=("epoch", "step"))
        self.bundle = bundle
        self._lean = _state_bytes(bundle) > LARGE_STATE_BYTES
        self._threads = check_positive("number of threads", threads)
        self._form: Form = form or ("step" if self._lean else "epoch")
        self._chunk_bytes = check_positive("chunk size in bytes", chunk_bytes)
        # Sessions use these where they lie.
        self._frozen = {n: ort.OrtValue.ortvalue_from_numpy(a.copy()) for n, a in bundle.frozen.items()}
        self._sessions: dict[_GraphName, Any] = {}
        self._lock = threading.Lock()

    def train(
        self,
        weights: Vector,
        x: Inputs,
        y: Targets = None,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        proximal_mu: float = 0.0,
        local: Vector | None = None,
        control: Vector | None = None,
        optimizer: OptimizerState | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> TrainResult:
        """Train from `weights` on `x`, `y` to the end, as `start` would.

        `should_stop` is asked between chunks of at most 64 steps.
        """
        training = self.start(
            weights,
            x,
            y,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            proximal_mu=proximal_mu,
            local=local,
            control=control,
            optimizer=optimizer,
        )
        if should_stop is None or not should_stop():
            for _ in training:
                if should_stop is not None and should_stop():
                    break
        return training.result()

    def start(
        self,
        weights: Vector,
        x: Inputs,
        y: Targets = None,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        proximal_mu: float = 0.0,
        local: Vector | None = None,
        control: Vector | None = None,
        optimizer: OptimizerState | None = None,
    ) -> Training:
        """A run from `weights` on `x`, `y`; each epoch sees every sample once, in an order drawn from `seed`.

        `weights` is a float32 vector in `bundle.schema`, `x` an array (or arrays by input name) of the
        signature's dtype with samples on axis 0, which may be memory-mapped, `y` what the loss compares with:
        class indices of shape `(samples,)`, or numbers of the output's shape. `seed` also drives dropout.
        `proximal_mu` pulls towards `weights` (FedProx, Li et al., MLSys 2020, section 3) and needs a bundle
        prepared with `proximal=True`. `local` is the device's own part, `bundle.initial_local` by default;
        `control` its own control variate (SCAFFOLD), in `bundle.control_schema`, zeros by default;
        `optimizer` the state that an earlier run ended with, zero by default. The last batch of an epoch may
        be smaller than the others.

        The same arguments on the same machine give bit-identical weights. Raises `ConfigError` for data or
        settings, `ModelError` for weights of another size, `NonFinite` for weights that are not finite.
        """
        manifest = self.bundle.manifest
        data = check_inputs(manifest, x)
        samples = len(next(iter(data.values())))
        data.update(check_targets(manifest, y, samples))
        epochs = check_positive("number of epochs", epochs)
        batch_size = min(check_positive("batch size", batch_size), samples)
        rng = np.random.default_rng(check_seed(seed))

        def chunks() -> Iterator[Chunk]:
            for _ in range(epochs):
                yield from training_chunks(data, rng.permutation(samples), batch_size, self._chunk_bytes)

        return self._run(weights, chunks(), learning_rate, seed, proximal_mu, local, control, optimizer)

    def start_stream(
        self,
        weights: Vector,
        stream: Stream,
        *,
        batch_size: int,
        learning_rate: float,
        seed: int,
        proximal_mu: float = 0.0,
        local: Vector | None = None,
        control: Vector | None = None,
        optimizer: OptimizerState | None = None,
    ) -> Training:
        """The same over a stream of `(x, y)` groups, once and in the order in which they come; a group is
        asked for when it is needed and forgotten when it has been trained on. One without samples is passed
        over. Raises as `start` does, for a group when its turn comes."""
        manifest = self.bundle.manifest
        batch_size = check_positive("batch size", batch_size)

        def groups() -> Iterator[Mapping[str, Array]]:
            for group in stream:
                if not isinstance(group, tuple | list) or len(group) != 2:
                    found = type(group).__name__
                    raise ConfigError("group of the stream", value=found, limit="a pair of x and y")
                x, y = group
                del group
                data = check_inputs(manifest, x, may_be_empty=True)
                samples = len(next(iter(data.values())))
                if samples:
                    data.update(check_targets(manifest, y, samples))
                # Gone before the next one is asked for.
                del x, y
                if samples:
                    yield data
                del data

        chunks = stream_chunks(groups(), batch_size, self._chunk_bytes)
        return self._run(
            weights, chunks, learning_rate, check_seed(seed), proximal_mu, local, control, optimizer
        )

    def evaluate(
        self,
        weights: Vector,
        x: Inputs,
        y: Targets = None,
        *,
        batch_size: int = 256,
        local: Vector | None = None,
    ) -> Metrics:
        """Loss and metrics of `weights` on `x`, `y` (as for `start`).

        Raises as `start` does.
        """
        manifest = self.bundle.manifest
        data = check_inputs(manifest, x)
        samples = len(next(iter(data.values())))
        data.update(check_targets(manifest, y, samples))
        constants = self._parameters(weights, local)
        session = self._session("evaluation")
        wanted = [f"{part}/{metric}" for metric in manifest.metrics for part in ("sum", "weight")]
        totals = np.zeros(len(wanted), np.float64)
        for feeds in evaluation_batches(data, check_positive("batch size", batch_size)):
            totals += _run(session, wanted, {**constants, **feeds})
        means = totals[0::2] / np.maximum(totals[1::2], np.finfo(np.float32).tiny)
        values = dict(zip(manifest.metrics, means.tolist(), strict=True))
        loss = sum(objective.weight * values[objective.metrics[0]] for objective in manifest.objectives)
        return Metrics(loss=loss, samples=samples, values=values)

    def predict(
        self, weights: Vector, x: Inputs, *, batch_size: int = 256, local: Vector | None = None
    ) -> Outputs:
        """The model's own output for `x`, or its outputs by name; samples on axis 0.

        Raises as `start` does.
        """
        constants = self._parameters(weights, local)
        values = {n: ort.OrtValue.ortvalue_from_numpy(a) for n, a in constants.items()}
        return self._predict(values, x, check_positive("batch size", batch_size))

    def _run(
        self,
        weights: Vector,
        chunks: Iterator[Chunk],
        learning_rate: float,
        seed: int,
        proximal_mu: float,
        local: Vector | None,
        control: Vector | None,
        optimizer: OptimizerState | None,
    ) -> Training:
        manifest = self.bundle.manifest
        mu = np.asarray(check_rate("proximal mu", proximal_mu), np.float32)
        if mu and not manifest.proximal:
            raise ConfigError(
                "proximal mu", value=proximal_mu, limit=0, remedy="prepare the bundle with proximal=True"
            )
        start = self._parameters(weights, local)
        rate = np.asarray(check_rate("learning rate", learning_rate), np.float32)
        constants: dict[str, Array] = {"lr": rate}
        correction = Correction.of(self.bundle, weights, control, np.float32(rate))
        constants.update(correction.constants)
        if manifest.proximal:
            constants["prox_mu"] = mu
            pulled = [p for p in manifest.weights if p.role == "trainable"]
            constants.update({f"ref/{p.name}": start[p.name] for p in pulled})
        if manifest.optimizer.seeded:
            constants["seed"] = np.asarray(seed % 2**63, np.int64)
        optimizer = OptimizerState.initial(self.bundle) if optimizer is None else optimizer
        optimizer.check(self.bundle)
        state = dict(start)
        for slot, vector in optimizer.slots.items():
            named = self.bundle.weight_schema.unflatten(vector)
            state.update({f"opt/{slot}/{n}": np.ascontiguousarray(a) for n, a in named.items()})
        if manifest.optimizer.counts:
            state["step"] = np.asarray(optimizer.step, np.int64)
        fresh = self._form not in self._sessions
        buffers = StateBuffers(self._session(self._form), self._form, state, constants, fresh=fresh)
        return Training(
            self.bundle, buffers, chunks, lambda values, x: self._predict(values, x, 256), correction
        )

    def _predict(self, values: Mapping[str, Any], x: Inputs, batch_size: int) -> Outputs:
        """Inference on weights that lie in OrtValues; names that the graph does not know are passed over."""
        manifest = self.bundle.manifest
        data = check_inputs(manifest, x)
        session = self._session("inference")
        names = [o.name for o in manifest.outputs]
        parts: list[list[Array]] = []
        for feeds in evaluation_batches(data, batch_size):
            binding = session.io_binding()
            try:
                for parameter in manifest.parameters:
                    if parameter.role != "frozen" and parameter.kind != "control":
                        binding.bind_ortvalue_input(parameter.name, values[parameter.name])
                for name, array in feeds.items():
                    binding.bind_cpu_input(name, array)
                for name in names:
                    binding.bind_output(name)
                session.run_with_iobinding(binding)
            except Exception as e:  # onnxruntime's exceptions share no base below Exception
                raise ModelError("onnxruntime could not run the model", value=str(e)) from e
            parts.append(binding.copy_outputs_to_cpu())
        joined = {name: np.concatenate(arrays) for name, *arrays in zip(names, *parts, strict=True)}
        return joined[names[0]] if len(names) == 1 else joined

    def _parameters(self, weights: Vector, local: Vector | None) -> dict[str, Array]:
        """What the graphs take of the trained parameters, by name, as contiguous arrays; the caller's vectors
        are never written to."""
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
            check_finite(thing, vector, "ask for the model again")
            steered = {t.name for t in schema.tensors if not t.control}
            out.update({n: np.ascontiguousarray(a) for n, a in named.items() if n in steered})
        return out

    def _session(self, name: _GraphName) -> Any:
        with self._lock:
            if name not in self._sessions:
                session = open_session(
                    self.bundle.parts[name],
                    name=name,
                    threads=self._threads,
                    lean=self._lean,
                    constants=self._frozen,
                )
                check_graph_types(session, name, self.bundle.manifest)
                self._sessions[name] = session
            return self._sessions[name]


def _state_bytes(bundle: Bundle) -> int:
    """What a training step reads and writes, besides data."""
    trained = bundle.schema.size + bundle.local_schema.size
    return 4 * (trained + len(bundle.manifest.optimizer.slots) * bundle.weight_schema.size)


def _run(session: Any, outputs: list[str], feeds: Mapping[str, Array]) -> list[Any]:
    try:
        result: list[Any] = session.run(outputs, dict(feeds))
    except Exception as e:  # onnxruntime's exceptions share no base below Exception
        raise ModelError("onnxruntime could not run the model", value=str(e)) from e
    return result
