"""A process of drivers: signals end it politely, notes become log lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from laconic.node import Note

Print = Callable[[str, Note, float], None]

LEVELS: Final = ("debug", "info", "warning")
_LEVELS: Final = {
    "warning": {
        *(
            "clock",
            "damaged",
            "dropped",
            "extended",
            "failed",
            "offline",
            "rejected",
            "storage",
            "unsendable",
        ),
    },
    "debug": {"telemetry", "duplicate", "not selected"},
}

_LEVEL_OF: Final = {kind: level for level, kinds in _LEVELS.items() for kind in kinds}


def level_of(note: Note) -> str:
    """How much a note matters: one of `LEVELS`."""
    return _LEVEL_OF.get(note.kind, "info")


def at_least(level: str, show: Print) -> Print:
    """Shows what matters so much or more."""
    shown = LEVELS[LEVELS.index(level) :]

    def show_some(who: str, note: Note, now: float) -> None:
        if level_of(note) in shown:
            show(who, note, now)

    return show_some


def print_json(who: str, note: Note, now: float) -> None:
    """A note as one JSON object on a line of standard output."""
    line = {
        "at": round(now, 6),
        "who": who,
        "level": level_of(note),
        "kind": note.kind,
        **note.fields,
    }
    print(_LINE.encode(line), flush=True)


def print_text(who: str, note: Note, now: float) -> None:
    """A note as a line for people and for the journal, on standard error."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = " ".join(f"{k}={_text(v)}" for k, v in note.fields.items() if v is not None)
    print(f"{moment} {who} {note.kind} {fields}".rstrip(), file=sys.stderr, flush=True)


async def drive(
    running: Sequence[Coroutine[Any, Any, None]],
    until: Callable[[], Awaitable[None]] | None = None,
    *,
    last: Callable[[], None] = lambda: None,
) -> None:
    """Run what is given until SIGINT or SIGTERM, or until `until()` is over.

    `last` is called before they are ended. An error in one ends all of them and is raised.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):
            loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.ensure_future(it) for it in running]
    ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait())]
    if until is not None:
        ends.append(asyncio.ensure_future(until()))
    try:
        done, _ = await asyncio.wait([*tasks, *ends], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        last()
    finally:
        for task in [*tasks, *ends]:
            task.cancel()
        await asyncio.gather(*tasks, *ends, return_exceptions=True)


def leave(code: int) -> int:
    """`code`, for a process that has saved everything; one that still computes ends here and now.

    A computation cannot be interrupted, and Python waits for its thread: it is done again at the next start.
    """
    if any(thread.name.startswith("compute") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


_LINE: Final = json.JSONEncoder(default=lambda value: value.hex() if isinstance(value, bytes) else str(value))
"""Made once: to make one takes as long as to write a line with it."""


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    text = str(_plain(value))
    return json.dumps(text) if " " in text or '"' in text or not text.isprintable() else text
