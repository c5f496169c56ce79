"""Real processes for system tests: a mosquitto, a coordinator, devices, and an ear on the broker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

Line = dict[str, Any]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Process:
    """A program that can be killed and started again; its notes are kept over its lives."""

    command: list[str]
    log: Path
    lines: list[Line] = field(default_factory=list)
    _running: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin a life."""
        with self.log.open("ab") as log:
            running = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._running = running
        threading.Thread(target=self._read, args=(running,), daemon=True).start()

    def kill(self) -> None:
        """kill -9."""
        assert self._running is not None
        self._running.send_signal(signal.SIGKILL)
        self._running.wait(10)

    def pause(self) -> None:
        """SIGSTOP."""
        assert self._running is not None
        self._running.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._running is not None
        self._running.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Ask it to stop, and make sure that it does."""
        if self._running is None or self._running.poll() is not None:
            return
        self._running.terminate()
        try:
            self._running.wait(10)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait(10)

    @property
    def pid(self) -> int:
        """The running life's process."""
        assert self._running is not None
        return self._running.pid

    def wait(self, seconds: float) -> int:
        """Wait for its own end; the exit code."""
        assert self._running is not None
        return self._running.wait(seconds)

    def notes(self, kind: str) -> list[Line]:
        """Its notes of one kind so far."""
        return [line for line in list(self.lines) if line.get("kind") == kind]

    def _read(self, running: subprocess.Popen[str]) -> None:
        """Keep every note, and write it beside the log: a run that failed is read there."""
        assert running.stdout is not None
        with self.log.with_suffix(".notes").open("a") as notes:
            for text in running.stdout:
                notes.write(text)
                notes.flush()
                self._keep(text)

    def _keep(self, text: str) -> None:
        try:
            self.lines.append(json.loads(text))
        except json.JSONDecodeError:
            # A killed process can leave half a line.
            self.lines.append({"kind": "torn", "text": text})


def laconic(*arguments: str) -> list[str]:
    """The command line of `laconic`."""
    return [sys.executable, "-m", "laconic.cli", *arguments]


def mosquitto(program: str, folder: Path, port: int) -> Process:
    """A broker that forgets everything when it is killed."""
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type error\n")
    return Process([program, "-c", str(config)], folder / "mosquitto.log")


def wait_for_port(port: int, seconds: float = 10) -> None:
    """Wait until something listens."""
    until(lambda: _answers(port), seconds, f"port {port}")


def until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until `true()`; fail with `what` when it does not happen in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.01)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


class Ear:
    """Hears all that devices say, independently of the coordinator."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="ear")
        self.subscriptions = 0
        self._client.on_connect = lambda c, *_: c.subscribe("laconic/v1/d/+/up/#", 1)
        self._client.on_subscribe = self._subscribed
        self._client.on_message = lambda c, u, m: self.messages.append((m.topic, bytes(m.payload)))
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _subscribed(self, *_: object) -> None:
        self.subscriptions += 1

    def close(self) -> None:
        """Stop hearing."""
        self._client.disconnect()
        self._client.loop_stop()
