"""Trains, evaluates and predicts with a bundle on onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from laconic.errors import ConfigError, ModelError
from laconic.runtime.batches import (
    Array,
    Inputs,
    Targets,
    check_inputs,
    check_positive,
    check_rate,
    check_seed,
    check_targets,
    evaluation_batches,
    samples_in,
)
from laconic.runtime.beginning import Beginning, parameters_of
from laconic.runtime.buffers import Form, StateBuffers
from laconic.runtime.bundle import Bundle
from laconic.runtime.checkpoint import Checkpoint, Run, state_schema
from laconic.runtime.chunks import Chunk, stream_chunks, training_chunks
from laconic.runtime.graph_types import check_graph_types
from laconic.runtime.inference import PREDICTION_BATCH, Inference, Outputs, Predictor
from laconic.runtime.optimizer_state import OptimizerState
from laconic.runtime.pace import Pace
from laconic.runtime.release import release
from laconic.runtime.session import open_session
from laconic.runtime.training import Training, TrainResult
from laconic.schema import Vector

_GraphName: TypeAlias = Literal["step", "epoch", "evaluation", "inference"]

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
    memory. `chunk_bytes` bounds the buffer into which training data is gathered; `stretch_s` is about how
    many seconds a run goes on between two chances to stop it, or one step, where that takes longer. Neither
    changes what is computed.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        form: Form | None = None,
        chunk_bytes: int = 2**18,
        stretch_s: float = 0.1,
    ) -> None:
        if form not in ("epoch", "step", None):
            raise ConfigError("form of training", value=form, limit=("epoch", "step"))
        self.bundle = bundle
        self._lean = _state_bytes(bundle) > LARGE_STATE_BYTES
        self._threads = check_positive("number of threads", threads)
        self._form: Form = form or ("step" if self._lean else "epoch")
        self._chunk_bytes = check_positive("chunk size in bytes", chunk_bytes)
        self._stretch_s = check_rate("stretch in seconds", stretch_s)
        self._pace: Pace | None = None
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

        `should_stop` is asked after every stretch (`stretch_s`) of at most 64 steps.
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
        data_tag: bytes = b"",
        resume: Checkpoint | None = None,
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

        The same arguments on the same machine give bit-identical weights; so does a run that was stopped and
        goes on from its checkpoint, given as `resume` with the arguments of its start. `data_tag`, at most 64
        bytes, tells these data from others, such as a digest does: a checkpoint remembers it. The vectors
        that a run starts with must stay as they are until it is over.

        Raises `ConfigError` for data or settings, `ModelError` for weights of another size, `NonFinite` for
        weights that are not finite; for `resume` `CheckpointMismatch` if it is of another run, `Malformed` or
        `NonFinite` if it is of none. Then the run has to begin anew.
        """
        manifest = self.bundle.manifest
        data = check_inputs(manifest, x)
        samples = samples_in(data)
        data.update(check_targets(manifest, y, samples))
        epochs = check_positive("number of epochs", epochs)
        batch_size = min(check_positive("batch size", batch_size), samples)
        seed = check_seed(seed)
        rng = np.random.default_rng(seed)
        if not isinstance(data_tag, bytes) or len(data_tag) > 64:
            raise ConfigError("data tag", value=data_tag, limit="at most 64 bytes")
        begin = Beginning.of(
            self.bundle, weights, learning_rate, seed, proximal_mu, local, control, optimizer
        )

        @cache
        def run() -> Run:
            import onnxruntime as ort

            return Run(
                bundle=self.bundle.hash,
                data_tag=data_tag,
                data_samples=samples,
                start=begin.digest(),
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=float(begin.learning_rate),
                proximal_mu=float(begin.proximal_mu),
                seed=f"{seed:x}",
                form=self._form,
                threads=self._threads,
                runtime=f"onnxruntime {ort.__version__}",
            )

        if resume is not None:
            resume.check(run(), self.bundle)
        pace = self._paced(batch_size)
        orders = (rng.permutation(samples) for _ in range(epochs))
        done = 0 if resume is None else resume.steps
        chunks = training_chunks(data, orders, batch_size, self._chunk_bytes, pace, done=done)
        return self._run(begin, chunks, pace, run, resume)

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
                samples = samples_in(data)
                if samples:
                    data.update(check_targets(manifest, y, samples))
                # Gone before the next one is asked for.
                del x, y
                if samples:
                    yield data
                del data

        begin = Beginning.of(
            self.bundle, weights, learning_rate, check_seed(seed), proximal_mu, local, control, optimizer
        )
        pace = self._paced(batch_size)
        return self._run(begin, stream_chunks(groups(), batch_size, self._chunk_bytes, pace), pace)

    def evaluate(
        self,
        weights: Vector,
        x: Inputs,
        y: Targets = None,
        *,
        batch_size: int = 32,
        local: Vector | None = None,
        should_stop: Callable[[], bool] | None = None,
        executor: Executor | None = None,
    ) -> Metrics:
        """Loss and metrics of `weights` on `x`, `y` (as for `start`).

        `should_stop` is asked after each batch but the last; what is returned then is measured on the
        samples up to there. With an `executor` of threads, in none of which this is called, its batches are
        measured at once, and added up in their order: the same to the last bit. Raises as `start` does.
        """
        manifest = self.bundle.manifest
        data = check_inputs(manifest, x)
        samples = samples_in(data)
        data.update(check_targets(manifest, y, samples))
        constants = parameters_of(self.bundle, weights, local)
        session = self._session("evaluation")
        wanted = [f"{part}/{metric}" for metric in manifest.metrics for part in ("sum", "weight")]
        totals = np.zeros(len(wanted), np.float64)
        seen = 0

        def measured(feeds: Mapping[str, Array]) -> tuple[list[Any], int]:
            return _run(session, wanted, {**constants, **feeds}), samples_in(feeds)

        batches = evaluation_batches(data, check_positive("batch size", batch_size))
        for sums, count in (map if executor is None else executor.map)(measured, batches):
            totals += sums
            seen += count
            if should_stop is not None and seen < samples and should_stop():
                break
        means = totals[0::2] / np.maximum(totals[1::2], np.finfo(np.float32).tiny)
        values = dict(zip(manifest.metrics, means.tolist(), strict=True))
        loss = sum(objective.weight * values[objective.metrics[0]] for objective in manifest.objectives)
        return Metrics(loss=loss, samples=seen, values=values)

    def predict(
        self,
        weights: Vector,
        x: Inputs,
        *,
        batch_size: int = PREDICTION_BATCH,
        local: Vector | None = None,
    ) -> Outputs:
        """The model's own output for `x`, or its outputs by name; samples on axis 0.

        Raises as `start` does.
        """
        return self.predictor(weights, local).predict(x, batch_size=batch_size)

    def predictor(self, weights: Vector, local: Vector | None = None) -> Predictor:
        """`predict` with these weights, for who asks more than once: they are looked at here and not at every
        call. They are used where they lie.

        Raises `ModelError` for weights of another size, `NonFinite` for weights that are not finite.
        """
        return Predictor(self._inference, parameters_of(self.bundle, weights, local))

    def rest(self) -> None:
        """Close what only training and evaluation need, and return the memory; for who does neither for a
        while. From any thread: a run in progress goes on with what it has. The next one opens it anew, which
        takes 10 to 20 ms and changes nothing of what is computed."""
        with self._lock:
            for name in ("step", "epoch", "evaluation"):
                self._sessions.pop(name, None)
        release()

    def _run(
        self,
        begin: Beginning,
        chunks: Iterator[Chunk],
        pace: Pace,
        run: Callable[[], Run] | None = None,
        resume: Checkpoint | None = None,
    ) -> Training:
        state = begin.state
        if resume is not None:
            state.update(state_schema(self.bundle).unflatten(resume.state))
            if "step" in state:
                state["step"] = state["step"] + resume.steps
        fresh = self._form not in self._sessions
        session = self._session(self._form)
        buffers = StateBuffers(session, self._form, state, begin.constants, fresh=fresh)
        return Training(self.bundle, buffers, chunks, self._predict, begin.correction, pace, run, resume)

    def _paced(self, batch_size: int) -> Pace:
        """The pace of a run, which goes on from that of the run before."""
        self._pace = Pace(self._stretch_s, batch_size, earlier=self._pace)
        return self._pace

    def _predict(self, values: Mapping[str, Any], x: Inputs) -> Outputs:
        return self._inference.run(self._inference.binding(values), x, PREDICTION_BATCH)

    @cached_property
    def _inference(self) -> Inference:
        return Inference(self.bundle, self._session("inference"))

    @cached_property
    def _frozen(self) -> Mapping[str, Any]:
        """Parameters that never change: sessions use these where they lie."""
        import onnxruntime as ort

        return {n: ort.OrtValue.ortvalue_from_numpy(a.copy()) for n, a in self.bundle.frozen.items()}

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
