"""Child processes that never outlive the demonstration."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from laconic.compression import native
from laconic.errors import TransportError

_POLITE_S = 5.0


class Children:
    """Processes started for the demonstration, all ended when the block ends, however it ends."""

    def __init__(self, logs: Path) -> None:
        """`logs`: the folder for what they write to standard error."""
        self._logs = logs
        self._running: dict[str, subprocess.Popen[str]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(
        self, name: str, command: list[str], on_line: Callable[[str], None] | None = None
    ) -> subprocess.Popen[str]:
        """Start a process; `on_line` is given each line of its standard output, in a thread."""
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if on_line is not None else log,
                stderr=log,
                text=True,
                # Ctrl-C is for us: we end the children ourselves, in order.
                start_new_session=True,
                env=_environment(),
            )
        self._running[name] = process
        if on_line is not None:
            threading.Thread(target=_read, args=(process, on_line), daemon=True).start()
        return process

    def check(self) -> None:
        """Raises `TransportError` when a process has ended that should be running."""
        for name, process in self._running.items():
            code = process.poll()
            if code not in (None, 0):
                log = self._logs / f"{name}.log"
                raise TransportError(
                    f"process {name} has ended with code {code}", value=_last_line(log), remedy=f"see {log}"
                )

    def end(self, names: list[str] | None = None) -> None:
        """End processes politely, and by force those that do not listen."""
        chosen = [n for n in self._running if names is None or n in names]
        for name in chosen:
            with contextlib.suppress(ProcessLookupError):
                self._running[name].terminate()
        deadline = time.monotonic() + _POLITE_S
        for name in chosen:
            process = self._running[name]
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            # Only now: an interruption of the wait must not lose sight of it.
            del self._running[name]


@contextlib.contextmanager
def children(logs: Path) -> Iterator[Children]:
    """A block whose processes end with it: also on Ctrl-C, SIGTERM or a closed terminal."""
    group = Children(logs)
    old = {n: signal.signal(n, _interrupt) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield group
    finally:
        # A second signal must not stop the ending half-way.
        impatient = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, *old)}
        try:
            group.end()
        finally:
            for number, handler in {**impatient, **old}.items():
                signal.signal(number, handler)


def _environment() -> dict[str, str]:
    """The user's environment without what would override our configuration files."""
    # Which kernels code the updates is no setting of these files.
    own = {k: v for k, v in os.environ.items() if not k.startswith("LACONIC_") or k == native.VARIABLE}
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _read(process: subprocess.Popen[str], on_line: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        on_line(line)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"
