"""A workshop whose jobs are done on a cluster: what meets whom, and in what order, is as on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias

from laconic.device_sim.cluster.cluster import Cluster
from laconic.device_sim.cluster.worker import train_alone, train_stack
from laconic.device_sim.learning.gathering import GatheredTrainer, trained_by
from laconic.device_sim.learning.job import Job, Outcome, Ready
from laconic.device_sim.learning.workshop import CHUNK_BYTES, STRETCH_S, Workshop
from laconic.edge_sdk.work import Begun, Halted, Work, conclude, learn
from laconic.edge_sdk.work import Outcome as WorkOutcome
from laconic.errors import ConfigError, LaconicError
from laconic.runtime import Bundle, TrainResult

Engine: TypeAlias = Literal["local", "ray"] | Cluster
"""Where devices train: in this process, on Ray processes of this machine, or on a cluster."""

_AHEAD = 2
"""Calls for each worker that are ready to be done, so that none waits for this process."""


@contextmanager
def workshop_of(bundle: Bundle, *, threads: int, engine: Engine) -> Iterator[Workshop]:
    """A workshop for a bundle; `ray` starts workers for it, and ends them. Raises `ConfigError`."""
    if engine == "local":
        with Workshop(bundle, threads=threads) as workshop:
            yield workshop
        return
    if engine != "ray" and not isinstance(engine, Cluster):
        raise ConfigError("engine", value=engine, limit=("local", "ray"))
    with Cluster() if engine == "ray" else nullcontext(engine) as cluster:
        cluster.start()
        with ClusterWorkshop(bundle, cluster, threads=threads) as workshop:
            yield workshop


class ClusterWorkshop(Workshop):
    """Trains on a cluster, and has the updates of a world's devices coded there: a coding often takes longer
    than a training. The rest of what an executor is asked is done in this process."""

    def __init__(self, bundle: Bundle, cluster: Cluster, *, threads: int) -> None:
        """`threads`: computations of this process at once, at least; those that wait for workers are more."""
        super().__init__(bundle, threads=max(threads, _AHEAD * cluster.workers))
        self._cluster = cluster
        self._given = cluster.given(bundle, stacked=self.way == "stacks")
        self.trainer = GatheredTrainer(bundle, chunk_bytes=CHUNK_BYTES, stretch_s=STRETCH_S)

    @property
    def executor(self) -> Executor:
        return _Spread(super().executor, self._cluster, self._done)

    def _alone(self, job: Job) -> Outcome:
        return self._cluster.call(train_alone, job, given=self._given)  # type: ignore[no-any-return]

    def _stack(self, jobs: Sequence[Ready]) -> list[Outcome]:
        return self._cluster.call(train_stack, [r.job for r in jobs], given=self._given)  # type: ignore[no-any-return]

    def _train(self, job: Job) -> TrainResult:
        outcome = self._alone(job)
        if isinstance(outcome, LaconicError):
            raise outcome
        return outcome

    def _done(self, work: Work) -> object:
        """A device's work, whose dear halves are done elsewhere."""
        assignment = work.assignment
        if not assignment.offer.train:
            return work()
        # In stacks it meets others first.
        with nullcontext() if self.way == "stacks" else trained_by(self._train):
            learnt = learn(assignment, work.learner)
        if isinstance(learnt, Halted):
            return learnt
        # What only the device itself needs stays here.
        private = learnt.trained.private
        outcome: WorkOutcome = self._cluster.call(
            conclude,
            replace(assignment, private=b"", begun=Begun()),
            replace(learnt, trained=replace(learnt.trained, private=b"")),
        )
        return replace(outcome, private=private)


class _Spread(Executor):
    """An executor that knows a device's work when it sees it."""

    def __init__(self, inner: Executor, cluster: Cluster, done: Callable[[Work], object]) -> None:
        self._inner, self._cluster, self._done = inner, cluster, done

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin a call; a `Work` among its arguments is done as it should be."""
        args = tuple(partial(self._done, a) if isinstance(a, Work) else a for a in args)
        return _Sound(self._inner.submit(fn, *args, **kwargs), self._cluster)


class _Sound(Future[Any]):
    """A result that is none once the cluster has failed: its device would believe that training had."""

    def __init__(self, inner: Future[Any], cluster: Cluster) -> None:
        super().__init__()
        self._inner, self._cluster = inner, cluster

    def result(self, timeout: float | None = None) -> Any:
        found = self._inner.result(timeout)
        if self._cluster.failure is not None:
            raise self._cluster.failure
        return found
