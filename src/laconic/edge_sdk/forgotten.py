"""Ends the devices that a program has left running when it ends.

The interpreter, on its way out, waits for the threads of every executor before it does anything else: for a
training that nobody has told to yield, that is until the slice of it is over.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 (it registers the waiting, and what is registered last comes first)
import contextlib
import threading
import weakref
from typing import Final, Protocol


class Running(Protocol):
    """What may be left running."""

    def stop(self) -> None:
        """End, and wait for it."""
        ...


_running: Final[weakref.WeakSet[Running]] = weakref.WeakSet()


def remember(it: Running) -> None:
    """Stop `it` when the interpreter ends, unless it is gone by then; `stop` may be called more than once."""
    _running.add(it)


def _end() -> None:
    for it in list(_running):
        # Whoever forgot it does not want to hear how it fared.
        with contextlib.suppress(Exception, SystemExit):
            it.stop()


# `atexit` would be too late. An interpreter without this function waits as it always does.
getattr(threading, "_register_atexit", lambda end: None)(_end)
