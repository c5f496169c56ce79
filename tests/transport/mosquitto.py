"""A mosquitto of the test's own: free port, own configuration, ended by its process id."""

from __future__ import annotations

import contextlib
import getpass
import socket
import subprocess
import time
from pathlib import Path


class Mosquitto:
    """One broker process on 127.0.0.1; it can be killed and started again on the same port."""

    def __init__(self, program: str, folder: Path, *, options: str = "") -> None:
        self._program, self._folder = program, folder
        self.port = free_port()
        self.configuration = folder / "mosquitto.conf"
        self.configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            f"max_queued_messages 100000\nuser {getpass.getuser()}\n"
            f"log_dest file {folder / 'mosquitto.log'}\n{options}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        self._process = subprocess.Popen(
            [self._program, "-c", str(self.configuration)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        log = self._folder / "mosquitto.log"
        self.kill()
        raise RuntimeError(f"mosquitto did not start: {log.read_text() if log.exists() else 'no log'}")

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
