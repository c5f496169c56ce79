"""Runs a command of the system for its output: briefly, boundedly, and without ever raising."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

Run: TypeAlias = Callable[[Sequence[str]], str | None]
"""Takes a command and its arguments; gives its output, or None if it failed."""

TIMEOUT_S: Final = 5.0
_LIMIT_BYTES: Final = 64 * 1024


def run(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> str | None:
    """Standard output of a command that ended with 0 in time; None in every other case.

    It runs in a session of its own, so that what it has started itself ends with it: commands of Termux are
    scripts whose children would hold the pipe open. Output beyond 64 KiB counts as failure.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except (OSError, ValueError):
        return None
    assert process.stdout is not None
    timer = threading.Timer(timeout_s, _end, (process,))
    timer.daemon = True
    timer.start()
    try:
        output = process.stdout.read(_LIMIT_BYTES + 1)
        if len(output) > _LIMIT_BYTES:
            _end(process)
        failed = process.wait() != 0
    finally:
        timer.cancel()
        process.stdout.close()
    return None if failed or len(output) > _LIMIT_BYTES else output.decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    # Until it has been waited for, no other process can have its id, which its session bears.
    if process.returncode is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
