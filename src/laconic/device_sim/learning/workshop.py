"""Trains virtual devices on as many cores as there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from types import TracebackType

from laconic.device_sim.learning.choice import Way, stacks_of, way_by_size
from laconic.device_sim.learning.gathering import GatheredTrainer, Gathering
from laconic.device_sim.learning.job import Job, Outcome, Ready
from laconic.device_sim.learning.sharing import Sharing
from laconic.device_sim.learning.stack import Stacks
from laconic.errors import ConfigError, LaconicError
from laconic.runtime import Bundle, Trainer

CHUNK_BYTES = 2**20
STRETCH_S = 60.0


class Workshop:
    """Does jobs of one bundle, in stacks or one by one in threads that share a session.

    For a world of production engines: `World(executor=workshop.executor)`, and in every device
    `OnnxLearner(workshop.trainer, data)`. Without a world: `train`. To be closed, or used as a context.
    """

    def __init__(self, bundle: Bundle, *, way: Way | None = None, threads: int | None = None) -> None:
        """`way`: None leaves it to the rule of size (`way_by_size`); what `way_by_measuring` found is given
        here. `threads`: as many as the process may use cores by default.

        Raises `ConfigError` for stacks of what cannot be stacked.
        """
        self.way: Way = way_by_size(bundle) if way is None else way
        """Which way it is: of this, the bundle and the jobs' order the results depend, to the bit."""
        if self.way not in ("stacks", "threads"):
            raise ConfigError("way of training", value=way, limit=("stacks", "threads"))
        self._stacks: Stacks | None = None
        if self.way == "stacks":
            self._stacks = stacks_of(bundle)
            if self._stacks is None:
                raise ConfigError("way of training", value=way, limit="threads", remedy="leave `way` away")
        threads = threads or _cores()
        self._pool, self._parts = ThreadPoolExecutor(threads), ThreadPoolExecutor(threads)
        self._gathering = None if self._stacks is None else Gathering(self.train)
        self._executor = Sharing(self._gathering or self._pool)
        kind = Trainer if self._stacks is None else GatheredTrainer
        # Nobody stops a run: it hands over as much at once as has room.
        self.trainer = kind(bundle, chunk_bytes=CHUNK_BYTES, stretch_s=STRETCH_S)
        """To be given to devices' learners."""

    @property
    def executor(self) -> Executor:
        """To be given to a world."""
        return self._executor

    @property
    def parts(self) -> Executor:
        """For the parts of one computation that is in a thread of `executor`."""
        return self._parts

    def train(self, jobs: Sequence[Job]) -> list[Outcome]:
        """What the jobs give, in their order.

        The same jobs in the same order give the same bits on the same machine, however many threads there
        are; stacks and threads agree to float32 rounding.
        """
        if self._stacks is None:
            alone = [self._pool.submit(self._alone, job) for job in jobs]
            return [future.result() for future in alone]
        stacks = self._stacks
        outcomes: list[Outcome | None] = [None] * len(jobs)
        ready: dict[int, Ready] = {}
        for i, job in enumerate(jobs):
            try:
                ready[i] = stacks.ready(job)
            except LaconicError as e:
                outcomes[i] = e
        at = list(ready)
        divided = stacks.divided(list(ready.values()))
        futures = [self._pool.submit(self._stack, [ready[at[i]] for i in places]) for places in divided]
        for places, future in zip(divided, futures, strict=True):
            for i, outcome in zip(places, future.result(), strict=True):
                outcomes[at[i]] = outcome
        return [o for o in outcomes if o is not None]

    def _alone(self, job: Job) -> Outcome:
        return alone(self.trainer, job)

    def _stack(self, jobs: Sequence[Ready]) -> list[Outcome]:
        assert self._stacks is not None
        return stack(self._stacks, jobs)

    def close(self) -> None:
        """End the threads; jobs under way are done."""
        if self._gathering is not None:
            self._gathering.shutdown()
        self._pool.shutdown()
        self._parts.shutdown()

    def __enter__(self) -> Workshop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cores() -> int:
    """How many cores the process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def alone(trainer: Trainer, job: Job) -> Outcome:
    """One job in this thread."""
    try:
        return trainer.train(**job.arguments)
    except LaconicError as e:
        return e


def stack(stacks: Stacks, jobs: Sequence[Ready]) -> list[Outcome]:
    """The jobs of one stack in this thread."""
    try:
        return stacks.train(jobs)
    except LaconicError as e:
        return [e] * len(jobs)
