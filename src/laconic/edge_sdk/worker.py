"""The thread that a device's work is done on; it rests once there has been none for a while."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from laconic.runtime.priority import lower_priority

P = ParamSpec("P")
T = TypeVar("T")

_REST_S: Final = 60.0
"""Between the end of work and rest. Rounds that follow each other faster find everything as it was left."""


class Worker(ThreadPoolExecutor):
    """One nice thread, for an event loop: `submit` is called on it, and jobs are over before it is closed."""

    def __init__(self, rest: Callable[[], object], *, rest_s: float = _REST_S) -> None:
        """`rest`: called on the thread when nothing has been submitted for `rest_s` seconds after work; again
        only after more work."""
        super().__init__(1, thread_name_prefix="compute", initializer=self._begin)
        self._loop = asyncio.get_running_loop()
        self._rest, self._rest_s = rest, rest_s
        self._due: asyncio.TimerHandle | None = None
        self._over = False
        self._thread: threading.Thread | None = None

    def is_here(self) -> bool:
        """Whether the calling thread is this one."""
        return self._thread is threading.current_thread()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self._put_off()
        job = super().submit(fn, *args, **kwargs)
        job.add_done_callback(self._worked)
        return job

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """From any thread."""
        self._over = True
        self._on_loop(self._put_off)
        super().shutdown(wait, cancel_futures=cancel_futures)

    def _begin(self) -> None:
        self._thread = threading.current_thread()
        lower_priority()

    def _put_off(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _worked(self, _: Future[Any]) -> None:
        self._on_loop(self._wait)

    def _wait(self) -> None:
        self._put_off()
        if not self._over:
            self._due = self._loop.call_later(self._rest_s, self._lie_down)

    def _lie_down(self) -> None:
        self._due = None
        # One that has just been shut down takes nothing more.
        with contextlib.suppress(RuntimeError):
            super().submit(self._rest)

    def _on_loop(self, call: Callable[[], None]) -> None:
        # A loop that has been closed has no timers left.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)
