"""The control socket: whoever may open it asks a running coordinator, or tells it what to do.

A Unix domain socket beside the store, for its owner alone. A request is one line of JSON, and so is its
answer: `{"ok": true, ...}`, or `{"ok": false, "error": ..., "message": ...}`. Answers are made on the event
loop, between the engine's events, and hold a bounded number of rows: asking cannot hold up a round.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from laconic.coordinator.conversations import PATIENCE_S, Conversations
from laconic.coordinator.status import Request
from laconic.errors import ConfigError, LaconicError, RemoteProtocolError

_REQUEST_LIMIT_BYTES: Final = 4096
_PATH_LIMIT_BYTES: Final = 107
"""Of a socket's path, in struct sockaddr_un (unix(7))."""

Act = Callable[[Request], dict[str, object]]


def check_path(path: Path) -> Path:
    """`path` itself. Raises `ConfigError` for one that no socket can have."""
    if len(os.fsencode(path)) > _PATH_LIMIT_BYTES:
        raise ConfigError(
            "length of the path of the control socket in bytes",
            value=len(os.fsencode(path)),
            limit=_PATH_LIMIT_BYTES,
            remedy="name a shorter one in control.socket",
        )
    return path


class ControlServer:
    """Answers requests until it is closed."""

    def __init__(self, path: Path, act: Act) -> None:
        """`act` gives the answer to a request, or raises a `LaconicError`."""
        self._path, self._act = check_path(path), act
        self._server: asyncio.Server | None = None
        self._conversations = Conversations(self._converse)

    async def open(self) -> None:
        """Begin to listen. Whoever calls holds the store's lock: a socket that lies here is left from a kill.

        Raises `ConfigError` if there can be no socket at the path.
        """
        try:
            if self._path.is_socket():
                self._path.unlink()
            before = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(
                    self._conversations.connected, self._path, limit=_REQUEST_LIMIT_BYTES
                )
            finally:
                os.umask(before)
        except OSError as e:
            raise ConfigError(
                f"cannot make the control socket {self._path} ({e.strerror})",
                remedy="name another place in control.socket",
            ) from e

    async def close(self) -> None:
        """Stop listening, and take the socket away."""
        if self._server is not None:
            self._server.close()
            await self._conversations.end()
            self._path.unlink(missing_ok=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(PATIENCE_S):
                line = await reader.readline()
                if not line:
                    return
                writer.write(self._answered(line) + b"\n")
                await writer.drain()

    def _answered(self, line: bytes) -> bytes:
        try:
            request = msgspec.json.decode(line, type=Request)
            return msgspec.json.encode({"ok": True, **self._act(request)})
        except (msgspec.DecodeError, LaconicError) as e:
            return msgspec.json.encode({"ok": False, "error": type(e).__name__, "message": str(e)})


def ask(path: Path, **request: object) -> dict[str, Any] | None:
    """The answer of the coordinator that listens at `path`; None if none does.

    Raises `RemoteProtocolError` when it refuses or does not answer in time.
    """
    check_path(path)
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(PATIENCE_S)
        try:
            link.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as e:
            raise RemoteProtocolError(
                f"cannot open the control socket {path} ({e.strerror or e})",
                remedy="it is for the user that the coordinator runs as",
            ) from e
        try:
            link.sendall(msgspec.json.encode(request) + b"\n")
            with link.makefile("rb") as lines:
                line = lines.readline()
        except OSError as e:
            raise RemoteProtocolError(f"no answer from the control socket {path} ({e})") from e
    if not line.endswith(b"\n"):
        raise RemoteProtocolError(f"no answer from the control socket {path}", remedy="is it ending?")
    found: dict[str, Any] = msgspec.json.decode(line)
    if not found.pop("ok"):
        raise RemoteProtocolError(f"the coordinator refuses: {found['message']}")
    return found
