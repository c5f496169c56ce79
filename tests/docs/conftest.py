"""Processes that end with their test, for the pages and examples that are tried for real."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Start = Callable[..., "subprocess.Popen[str]"]
LONGEST_LIFE_S = 60.0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program in `tmp_path`, standard output to a pipe; it is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def run(*command: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("LACONIC_")}
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
        )
        running.append(process)
        return process

    def kill() -> None:
        for process in running:
            process.kill()

    # A test reads its processes' output to the end: a process that hangs must not hang the test.
    watchdog = threading.Timer(LONGEST_LIFE_S, kill)
    watchdog.daemon = True
    watchdog.start()
    yield run
    watchdog.cancel()
    for process in running:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture
def answers() -> Callable[[int], None]:
    """Waits until something listens on a port."""

    def wait(port: int) -> None:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 0.5).close()
                return
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.02)

    return wait
