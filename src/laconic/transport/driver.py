"""Runs a Node in real time: a link for messages, a store for what is saved, threads for what is computed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Final

from laconic.errors import BrokerRefused, LimitExceeded, LocalProtocolError
from laconic.node import (
    Compute,
    Computed,
    Connected,
    Effect,
    Event,
    Node,
    Note,
    Ordered,
    Received,
    Save,
    Send,
    Started,
    Subscribe,
    Unsubscribe,
    Woke,
)
from laconic.storage import Store
from laconic.transport.link import Link, LinkDown, LinkEvent, LinkUp, Message
from laconic.transport.staging import StagedStore

Observer = Callable[[Note, float], None]
Watch = Callable[[Event, float], None]

_GROUP_MESSAGES: Final = 512
_GROUP_BYTES: Final = 4 * 2**20
_GROUP_S: Final = 0.1
"""How much is made durable by one write at most: whoever waits for an answer waits for the whole group."""


class Driver:
    """One node on one link. See `laconic.node` for the contract that it keeps."""

    def __init__(
        self,
        node: Node,
        link: Link,
        store: Store,
        *,
        observe: Observer = lambda note, now: None,
        clock: Callable[[], float] = time.time,
        executor: Executor | None = None,
        watch: Watch = lambda event, seconds: None,
        must_be_let_in: bool = False,
    ) -> None:
        """`clock` gives seconds; where it steps back the node sees time go slowly until it has caught up.

        `watch` is told after each event how many seconds it took, its effects included. `must_be_let_in`: a
        broker that refuses us before it has ever let us in ends `run`; else it is asked again and again.

        `executor` runs `Compute` effects; by default one thread of this driver's own, so that a device
        trains one thing at a time.
        """
        self._node, self._link = node, link
        self._observe, self._clock = observe, clock
        self._own_executor = executor is None
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._watch, self._must_be_let_in = watch, must_be_let_in
        self.started = asyncio.Event()
        """Set once the node has restored itself."""
        self.connected = False
        self._computed: deque[Computed] = deque()
        self._stirred = asyncio.Event()
        self._jobs: set[asyncio.Task[None]] = set()
        self._staged = StagedStore(store)
        self._held: list[Effect | int] = []
        """What waits for staged entries to be durable, in order: effects, and receipts of messages."""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._leaving: tuple[Future[None], list[Effect | int]] | None = None
        """A write under way, and what waits for it; what is held meanwhile comes after that."""
        self._now = 0.0
        self._ticked = time.monotonic()

    async def run(self) -> None:
        """Drive the node until cancelled.

        Raises `StorageError` when something cannot be saved: a node that cannot remember must not go on;
        `BrokerRefused`: see `must_be_let_in`.
        """
        listening: asyncio.Task[LinkEvent] | None = None
        try:
            self._feed(Started(self._staged))
            self.started.set()
            await self._link.open(self._node.will)
            while True:
                # A busy queue must not starve a wake: look at the clock before every event.
                if self._overdue():
                    self._wake()
                elif self._computed:
                    self._feed(self._computed.popleft())
                elif self._leaving is not None and self._leaving[0].done():
                    self._go_on()
                elif listening is not None and listening.done():
                    self._from_link(listening.result())
                    listening = None
                    await self._drain()
                elif listening is None and self._link.pending():
                    await self._drain()
                else:
                    listening = listening or asyncio.ensure_future(self._link.next_event())
                    await self._rest(listening)
                    continue
                # However much there is to do, the link gets its turn, and the node can be cancelled.
                await asyncio.sleep(0)
        finally:
            for task in (listening, *self._jobs):
                if task is not None:
                    task.cancel()
            # Whoever closes the store next must find nobody writing.
            self._writer.shutdown()
            await self._link.close()
            if self._own_executor:
                self._executor.shutdown(wait=False, cancel_futures=True)

    def order(self, order: object) -> None:
        """Give the node an order, between events: for callers on the driver's event loop.

        Raises the `LaconicError` of a node that cannot do it.
        """
        if not self.started.is_set():
            raise LocalProtocolError("order", value=type(order).__name__, limit="once the node has started")
        self._feed(Ordered(order))
        # It may want to wake at another time now.
        self._stir()

    async def _rest(self, listening: asyncio.Task[LinkEvent]) -> None:
        """Wait until there is something to do."""
        self._stirred.clear()
        listening.add_done_callback(self._stir)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience()):
                await self._stirred.wait()
        listening.remove_done_callback(self._stir)

    def _stir(self, _: object = None) -> None:
        self._stirred.set()

    async def _drain(self) -> None:
        """Handle the messages that wait, and make what they changed durable by one write.

        Where still more have come by then, that is done while they are handled.
        """
        taken, until = 1, time.monotonic() + _GROUP_S
        while self._link.pending() and not self._overdue() and taken < _GROUP_MESSAGES:
            if self._staged.staged_bytes > _GROUP_BYTES or time.monotonic() > until:
                break
            # Does not wait: something is pending.
            self._from_link(await self._link.next_event())
            taken += 1
        if self._held and self._leaving is None:
            # Time for the link to read.
            await asyncio.sleep(0)
            if not self._link.pending():
                self._settle()
        if self._leaving is not None and self._full():
            await asyncio.wait((asyncio.wrap_future(self._leaving[0]),))
        if self._leaving is None or self._leaving[0].done():
            self._go_on()

    def _full(self) -> bool:
        """Whether no more may wait to be durable."""
        return len(self._held) > 3 * _GROUP_MESSAGES or self._staged.staged_bytes > _GROUP_BYTES

    def _go_on(self) -> None:
        """Carry out what waited for a write that is over, and begin to write what is held."""
        self._land()
        if self._held:
            loop = asyncio.get_running_loop()
            leaving = self._writer.submit(self._staged.begin())
            leaving.add_done_callback(lambda _: loop.call_soon_threadsafe(self._stir))
            self._leaving, self._held = (leaving, self._held), []

    def _from_link(self, event: LinkEvent) -> None:
        match event:
            case LinkUp():
                self.connected, self._must_be_let_in = True, False
                self._settle()
                self._observe(Note("online"), self._now)
                self._feed(Connected())
            case LinkDown(why, refused):
                self.connected = False
                self._settle()
                self._observe(Note("offline", {"why": why}), self._now)
                if refused and self._must_be_let_in:
                    raise BrokerRefused(
                        why, remedy="check user, password, certificate and client id, and the broker's rules"
                    )
            case Message(topic, payload, receipt):
                self._feed(Received(topic, payload))
                if self._waits:
                    self._held.append(receipt)
                else:
                    self._link.acknowledge(receipt)

    def _wake(self) -> None:
        before = self._node.wake_at
        self._feed(Woke())
        after = self._node.wake_at
        if after is not None and before is not None and after <= before:
            raise LocalProtocolError(
                "wake time after a wake",
                value=after,
                limit=f"later than {before}",
                remedy="a node must move it",
            )

    def _overdue(self) -> bool:
        wake_at = self._node.wake_at
        return wake_at is not None and wake_at <= self._tick()

    def _patience(self) -> float | None:
        wake_at = self._node.wake_at
        return None if wake_at is None else max(0.0, wake_at - self._tick())

    def _tick(self) -> float:
        # A clock that was set back is waited for at half speed: time neither goes back nor stands still.
        elapsed, self._ticked = time.monotonic() - self._ticked, time.monotonic()
        self._now = max(self._now + elapsed / 2, self._clock())
        return self._now

    def _feed(self, event: Event) -> None:
        grouped = isinstance(event, Received)
        if not grouped:
            self._settle()
        begin = time.perf_counter()
        for effect in self._node.handle(event, self._tick()):
            if isinstance(effect, Save) and grouped:
                self._staged.stage(effect.entries)
                self._held.append(effect)
            elif self._waits and not isinstance(effect, Compute):
                self._held.append(effect)
            else:
                # A computation reads the store: what was saved before must be there.
                self._settle()
                self._apply(effect)
        self._watch(event, time.perf_counter() - begin)

    @property
    def _waits(self) -> bool:
        """Whether anything waits to be durable: what comes next comes after it."""
        return bool(self._held) or self._leaving is not None

    def _settle(self) -> None:
        """Make durable what is staged, and carry out what waits for it."""
        self._land()
        if self._held:
            self._staged.commit()
            held, self._held = self._held, []
            self._carry_out(held)

    def _land(self) -> None:
        """Wait for the write under way, and carry out what waits for it."""
        if self._leaving is not None:
            (leaving, held), self._leaving = self._leaving, None
            leaving.result()
            self._staged.landed()
            self._carry_out(held)

    def _carry_out(self, held: list[Effect | int]) -> None:
        for effect in held:
            if isinstance(effect, int):
                self._link.acknowledge(effect)
            elif not isinstance(effect, Save):
                self._apply(effect)

    def _apply(self, effect: Effect) -> None:
        match effect:
            case Send(topic, payload, qos, retain):
                try:
                    self._link.publish(topic, payload, qos=qos, retain=retain)
                except LimitExceeded as e:
                    # A packet over the broker's limit would be sent again for ever: it is refused here.
                    self._observe(Note("unsendable", {"topic": topic, "error": str(e)}), self._now)
            case Subscribe(filters):
                self._link.subscribe(filters)
            case Unsubscribe(filters):
                self._link.unsubscribe(filters)
            case Save(entries):
                self._staged.write(entries)
            case Compute():
                job = asyncio.ensure_future(self._compute(effect))
                self._jobs.add(job)
                job.add_done_callback(self._jobs.discard)
            case Note():
                self._observe(effect, self._now)

    async def _compute(self, effect: Compute) -> None:
        def timed() -> Computed:
            begin = time.perf_counter()
            try:
                result: object = effect.run()
            except Exception as e:
                result = e
            except BaseException as e:
                # A program's own code may raise what is no Exception, such as asyncio.CancelledError or the
                # panic of an extension: without a result the node would wait for ever.
                result = RuntimeError(f"{type(e).__name__}: {e}")
            return Computed(effect.job, result, time.perf_counter() - begin)

        try:
            done = await asyncio.get_running_loop().run_in_executor(self._executor, timed)
        except RuntimeError as e:
            # The program's main thread has ended: from then on no executor takes anything.
            done = Computed(effect.job, e, 0.0)
        self._computed.append(done)
        self._stirred.set()
