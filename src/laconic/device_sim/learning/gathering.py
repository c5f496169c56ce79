"""Lets the trainings of a world's devices meet, so that they go in stacks.

A device's work is one function that trains somewhere in its middle. Each runs in a thread of its own up to
there and waits; when every one of them waits or has ended, what they wait for is done together. Nothing is
begun before a result is asked for: who meets whom depends on virtual time alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

from laconic.device_sim.learning.job import Job, Outcome
from laconic.errors import LocalProtocolError
from laconic.runtime import Checkpoint, OptimizerState, Progress, Trainer, Training, TrainResult
from laconic.runtime.batches import Inputs, Targets
from laconic.runtime.inference import Outputs
from laconic.schema import Vector

Work: TypeAlias = Callable[[Sequence[Job]], list[Outcome]]

AT_ONCE = 256
"""Functions that run at once at most; each has a thread."""


class Gathering(Executor):
    """An executor for a `World`; all is asked of it by one thread."""

    def __init__(self, work: Work) -> None:
        """`work` does the jobs that have met."""
        self._work = work
        self._waiting: list[tuple[_Asked, Callable[[], object]]] = []
        self._pool = ThreadPoolExecutor(AT_ONCE)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Keep a call until a result is asked for."""
        future = _Asked(self)
        self._waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def flush(self) -> None:
        """Do everything that has been submitted."""
        while self._waiting:
            some, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            meeting = _Meeting(len(some))
            for place, (future, call) in enumerate(some):
                self._pool.submit(_attend, meeting, place, future, call)
            meeting.hold(self._work)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads. What nobody has asked for is not done."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


class _Asked(Future[Any]):
    def __init__(self, gathering: Gathering) -> None:
        super().__init__()
        self._gathering = gathering

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self._gathering.flush()
        return super().result(timeout)


class _Meeting:
    """Those whose functions run at once, by their places."""

    def __init__(self, count: int) -> None:
        self._running = count
        self._still = threading.Condition()
        self._asked: dict[int, tuple[Job, Future[TrainResult]]] = {}
        self.way = threading.Lock()
        """Held by the one that is on its way: with tiny models that is Python, and several at once would take
        the interpreter from each other."""

    def train(self, place: int, job: Job) -> TrainResult:
        """What comes of a job, once all the others have one too, or are done."""
        found: Future[TrainResult] = Future()
        self._asked[place] = job, found
        self.way.release()
        self.leave()
        try:
            return found.result()
        finally:
            self.way.acquire()

    def leave(self) -> None:
        """A function has ended, or waits."""
        with self._still:
            self._running -= 1
            if not self._running:
                self._still.notify()

    def hold(self, work: Work) -> None:
        """Do what they wait for, until all have left."""
        while True:
            with self._still:
                self._still.wait_for(lambda: not self._running)
                asked = [self._asked[place] for place in sorted(self._asked)]
                self._asked.clear()
                self._running = len(asked)
            if not asked:
                return
            outcomes: Sequence[Outcome | Exception]
            try:
                outcomes = work([job for job, _ in asked])
            except Exception as e:
                outcomes = [e] * len(asked)
            for (_, found), outcome in zip(asked, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    found.set_exception(outcome)
                else:
                    found.set_result(outcome)


_seat: ContextVar[Callable[[Job], TrainResult] | None] = ContextVar("seat", default=None)


@contextmanager
def trained_by(train: Callable[[Job], TrainResult]) -> Iterator[None]:
    """Meanwhile the runs of a `GatheredTrainer` that this thread starts are done by `train`."""
    token = _seat.set(train)
    try:
        yield
    finally:
        _seat.reset(token)


def _attend(meeting: _Meeting, place: int, future: Future[Any], call: Callable[[], object]) -> None:
    try:
        with meeting.way, trained_by(lambda job: meeting.train(place, job)):
            found = call()
        future.set_result(found)
    except BaseException as e:
        future.set_exception(e)
    finally:
        meeting.leave()


class GatheredTrainer(Trainer):
    """A Trainer whose runs meet others where a `Gathering` calls, or are done by whom `trained_by` names;
    elsewhere, and to resume, it is itself."""

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
        """As `Trainer.start`; what that raises at once a gathered run raises when it is iterated over."""
        job = Job(
            weights,
            x,
            y,
            epochs,
            batch_size,
            learning_rate,
            seed,
            proximal_mu=proximal_mu,
            local=local,
            control=control,
            optimizer=optimizer,
        )
        seat = _seat.get()
        if seat is None or resume is not None:
            return super().start(**job.arguments, data_tag=data_tag, resume=resume)
        return _Gathered(self, lambda: seat(job))


class _Gathered(Training):
    """A run of which one turn of the iteration is all."""

    def __init__(self, trainer: Trainer, train: Callable[[], TrainResult]) -> None:
        self._trainer, self._train = trainer, train
        self._found: TrainResult | None = None

    def __iter__(self) -> Iterator[Progress]:
        if self._found is None:
            found = self._found = self._train()
            yield Progress(found.losses, found.steps, found.samples)

    def predict(self, x: Inputs) -> Outputs:
        found = self.result()
        return self._trainer.predict(found.weights, x, local=found.local)

    def checkpoint(self) -> Checkpoint:
        raise LocalProtocolError("a run in a stack has no checkpoint", remedy="let it end")

    def result(self) -> TrainResult:
        if self._found is None:
            raise LocalProtocolError("a run in a stack has no result before it has ended")
        return self._found
