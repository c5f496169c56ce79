"""The device in a program of one's own: connect, take part, predict."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from laconic.edge_sdk.data import Examples
from laconic.edge_sdk.forgotten import remember
from laconic.edge_sdk.hooks import Hooks, NewModel, RoundDone, Skipped
from laconic.edge_sdk.life import Life, MakeSensors, Person
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.readers import Machine
from laconic.edge_sdk.sensors import Readings
from laconic.edge_sdk.supervisor import keep_alive
from laconic.errors import LocalProtocolError
from laconic.node import Note
from laconic.protocol.chunks import DEFAULT_CHUNK_BYTES
from laconic.runtime import Bundle, Trainer
from laconic.runtime.batches import Inputs
from laconic.runtime.inference import Outputs, Predictor
from laconic.schema import Vector
from laconic.transport.mqtt import Address

_THREAD: Final = "laconic"


class Device:
    """One device of a fleet.

    `with Device(...) as device:` takes part in a thread of its own, so that the program's work goes on, and
    `async with Device(...) as device:` on the program's event loop; either leaves nothing behind.
    `device.run()` takes part in this thread until `stop()`, `await device.run_async()` until cancelled.
    """

    def __init__(
        self,
        name: str,
        *,
        broker: str | Address,
        bundle: str | Path | Bundle | Trainer,
        data: Examples,
        store: str | Path,
        cohort: str = "default",
        limits: Limits | None = None,
        busy: Callable[[], bool] = lambda: False,
        time_zone: str = "UTC",
        sensors: MakeSensors = Machine,
        fleet_key: bytes | None = None,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        retry_s: float = 10.0,
        checkpoint_s: float = 120.0,
        on_model: Callable[[NewModel], None] | None = None,
        on_round: Callable[[RoundDone], None] | None = None,
        on_skip: Callable[[Skipped], None] | None = None,
        on_note: Callable[[Note, float], None] | None = None,
    ) -> None:
        """`bundle`: a file, or one already read; devices in one process can share a `Trainer`.

        `data`: what to learn from; arrays, files, data sets, iterables or a function (docs/data.md). `store`:
        the file that keeps model, residual and outbox. `limits`: what the owner allows; `busy`: asked several
        times a second while there is work, from any thread, whether the program wants the machine for itself:
        training yields within half a second, and goes on later. `checkpoint_s`: how much training a loss of
        power may cost. `retry_s`: the first wait for an answer before asking again; it doubles up to five
        minutes. `time_zone`: where the device's days and months begin, for its limits. `sensors` is given a
        function that tells the bytes on the wire.

        The hooks are called on the device's thread, which waits for them: `on_model` when there is a newer
        model, `on_round` when the coordinator has judged an update, `on_skip` when nothing was sent,
        `on_note` for all that happens; without it, that is logged under `laconic.device`.

        Raises `ConfigError` for a name, address, limit or file that cannot be used, `WireError` or
        `ModelError` for a bundle that cannot, `DataError` for data that cannot.
        """
        hooks = Hooks(name, on_model, on_round, on_skip, on_note)
        self._person = Person(
            name,
            broker=broker,
            bundle=bundle,
            data=data,
            store=Path(store),
            cohort=cohort,
            limits=limits or Limits(),
            busy=busy,
            time_zone=time_zone,
            sensors=sensors,
            fleet_key=fleet_key,
            chunk_bytes=chunk_bytes,
            retry_s=retry_s,
            checkpoint_s=checkpoint_s,
            observe=hooks.hear,
        )
        self._observe = hooks.hear
        self._life = Life(self._person)
        """The present one, or the last while there is none."""
        self._predictor: tuple[Vector, bytes, Predictor] | None = None
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        """In which it takes part, if that is not the program's own event loop."""
        self._ready, self._over = threading.Event(), threading.Event()
        self._takes_part = False
        self._failure: BaseException | None = None

    @property
    def name(self) -> str:
        """The device's name."""
        return self._person.name

    @property
    def version(self) -> int:
        """The version of the model that `predict` uses."""
        return self._life.engine.model.version

    def totals(self) -> dict[str, object]:
        """Bytes and joules since the process began, charge, temperature, load, as the sensors have them."""
        # Without `busy`, which may well ask for these.
        readings = self._life.guard.measured(time.time())
        return {f: getattr(readings, f) for f in Readings.__struct_fields__ if f != "busy"}

    def predict(self, x: Inputs) -> Outputs:
        """The model's output for inputs `x`, samples on axis 0, by the newest whole model; from any thread.

        A model with several inputs or outputs takes or gives a mapping by their names.

        Raises `ConfigError` for inputs of another shape or dtype.
        """
        weights, private = self._life.engine.model.weights, self._life.engine.private
        ready = self._predictor
        if ready is None or ready[0] is not weights or ready[1] is not private:
            local = self._life.learner.local(private)
            ready = weights, private, self._person.trainer.predictor(weights, local)
            self._predictor = ready
        return ready[2].predict(x)

    # --- taking part

    async def run_async(self) -> None:
        """Take part until cancelled, or `stop()`. Lives that end in a fault of the store are begun again.

        Raises `StorageError` for a store that cannot be opened at first, and what else ends the device.
        """
        if self._takes_part:
            raise LocalProtocolError("the device takes part already", remedy="make a Device for each")
        task = asyncio.current_task()
        assert task is not None
        self._loop, self._task = asyncio.get_running_loop(), task
        if self._ending:
            return
        self._takes_part = True
        try:
            await _to_the_end(asyncio.ensure_future(keep_alive(self._live, observe=self._hear)))
        except asyncio.CancelledError:
            # `stop` is not meant for the program's own task, unless that has been cancelled too.
            if not self._ending or task.uncancel():
                raise
        finally:
            self._takes_part = False

    def run(self) -> None:
        """Take part in this thread until `stop()` from another, or Ctrl-C. Raises as `run_async`."""
        self._begin_once()
        self._thread = threading.current_thread()
        try:
            asyncio.run(self.run_async())
        finally:
            self._over.set()

    def start(self) -> None:
        """Take part in a thread of its own. Raises as `run_async`, for what is seen at once."""
        self._begin_once()
        self._thread = threading.Thread(target=self._in_thread, name=_THREAD, daemon=True)
        self._thread.start()
        remember(self)
        try:
            self._ready.wait()
        except BaseException:  # Ctrl-C
            self.stop()
            raise
        if self._failure is not None:
            self.stop()

    def stop(self) -> None:
        """End: training is written down, the broker is told. Waits for it, and raises what has ended the
        device early.

        From a hook, `busy`, the code that gives the data, a signal's handler or the program's event loop,
        which the device needs in order to end, it does not wait.
        """
        self._ending = True
        if self._loop is not None:
            # It may have been closed just now.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._leave)
        if self._thread is None or self._thread is threading.current_thread() or self._life.works_here():
            return
        # A thread that could not be started is never over, nor is one that a fork has left in the parent.
        if self._thread.is_alive():
            self._over.wait()
        if self._thread.name == _THREAD and self._thread.is_alive():
            self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> Device:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Device:
        self._begin_once()
        task = self._task = asyncio.ensure_future(self.run_async())
        try:
            while not (self._ready.is_set() or task.done()):
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            await self.__aexit__(None, None, None)
            raise
        if task.done():
            await task
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._ending = True
        self._leave()
        await _to_the_end(self._task)

    def _leave(self) -> None:
        if self._takes_part and self._task is not None:
            # Once: whoever else wants it to end waits for the same end.
            self._takes_part = False
            self._task.cancel()

    def _begin_once(self) -> None:
        if self._task is not None or self._thread is not None:
            raise LocalProtocolError("the device has been started before", remedy="make a new Device")

    def _in_thread(self) -> None:
        try:
            asyncio.run(self.run_async())
        except BaseException as e:
            self._failure = e
        finally:
            self._ready.set()
            self._over.set()

    def _hear(self, note: Note, now: float) -> None:
        self._observe(note, now)
        if note.kind == "storage":
            # There is a first life, though its disk may not be written: whoever started it can predict.
            self._ready.set()

    async def _live(self, opened: Callable[[], None]) -> None:
        life = self._life if not self._life.begun else Life(self._person)

        def begun() -> None:
            opened()
            # Not before: until it has restored itself it holds no model but the first.
            self._life = life
            self._ready.set()

        await life.live(begun)


async def _to_the_end(task: asyncio.Task[None]) -> None:
    """Wait until a task is over; being cancelled cancels it once, however often, and waits too.

    So what a device has still to write down and to say is not cut short.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as e:
            if cancelled is None:
                task.cancel()
            cancelled = e
    if cancelled is None:
        task.result()
        return
    if not task.cancelled():
        # What went wrong at the end is of no use to one who is told to end.
        task.exception()
    raise cancelled
