"""A device's surroundings, real and on this machine: a mosquitto, with TLS or without, and a coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from _sdk.latency import model
from laconic.training import prepare

PATIENCE_S: Final = 120.0
SAMPLES: Final = 128


class Unsettled(Exception):
    """Something did not come about in time, or is missing."""


def program(name: str) -> str:
    """A program's path."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise Unsettled(f"no {name} on the PATH")
    return found


def examples(classes: int = 10) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Grey pictures of nothing, and what they are to be taken for."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((SAMPLES, 1, 28, 28)).astype(np.float32), np.arange(SAMPLES) % classes


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def furnish(folder: Path, name: str) -> None:
    """Put a model's bundle and a device's examples into `folder`."""
    (folder / "model.bundle").write_bytes(prepare(model(name)))
    x, y = examples()
    np.savez(folder / "d.npz", x=x, y=y)


def certify(folder: Path) -> None:
    """A certificate for 127.0.0.1 that signs itself: `cert.pem`, `key.pem`."""
    command = (
        f"{program('openssl')} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    )
    command += " -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


@asynccontextmanager
async def broker(folder: Path, *, tls: bool = False) -> AsyncIterator[int]:
    """A mosquitto; gives its port."""
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "log_type error"]
    if os.geteuid() == 0:
        lines.append("user root")
    if tls:
        certify(folder)
        lines += [f"certfile {folder / 'cert.pem'}", f"keyfile {folder / 'key.pem'}"]
    settings = folder / "mosquitto.conf"
    settings.write_text("\n".join(lines) + "\n")
    async with process([program("mosquitto"), "-c", str(settings)], folder / "mosquitto.log"):
        await until(lambda: listens(port), "mosquitto to listen")
        yield port


@asynccontextmanager
async def process(
    command: list[str], log: Path, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that ends with the block; what it says is added to `log`."""
    with log.open("ab") as told:
        running = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            env={**as_installed(), **environment},
        )
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.terminate()
        await running.wait()


@cache
def _bytecode() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="laconic-bytecode-")


def as_installed() -> dict[str, str]:
    """An environment as of the base install: modules lie compiled once they have been loaded, and compiled
    kernels for the codec, an extra, are not used."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPYCACHEPREFIX": _bytecode().name, "LACONIC_NATIVE": "0"}


def laconic(*arguments: Any) -> list[str]:
    """The command line of `laconic`."""
    return [sys.executable, "-m", "laconic.cli", *map(str, arguments)]


async def until(true: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until `true()`. Raises `Unsettled`."""
    deadline = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > deadline:
            raise Unsettled(f"waited {patience_s:.0f} s in vain for {what}")
        await asyncio.sleep(0.02)


def listens(port: int) -> bool:
    """Whether something does on a port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False
