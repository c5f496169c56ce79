"""Where Prometheus reads: the metrics' text over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from laconic.coordinator.conversations import PATIENCE_S, Conversations
from laconic.errors import ConfigError

_REQUEST_LIMIT_BYTES: Final = 8192


class MetricsServer:
    """Answers `GET /metrics` in as much HTTP/1.1 as that takes."""

    def __init__(self, address: str, port: int, read: Callable[[], str]) -> None:
        """`read` gives the text."""
        self._address, self._port, self._read = address, port, read
        self._server: asyncio.Server | None = None
        self._conversations = Conversations(self._converse)

    async def open(self) -> None:
        """Begin to listen. Raises `ConfigError` if nobody can at this address and port."""
        try:
            self._server = await asyncio.start_server(
                self._conversations.connected, self._address, self._port, limit=_REQUEST_LIMIT_BYTES
            )
        except OSError as e:
            raise ConfigError(
                f"cannot listen for metrics on {self._address} port {self._port} ({e.strerror})",
                remedy="choose another metrics.port or metrics.address",
            ) from e

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._conversations.end()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.writelines(self._response(head.split(b"\r\n", 1)[0].split()))
            await writer.drain()

    def _response(self, request: list[bytes]) -> Iterable[bytes]:
        status, body = "404 Not Found", b"only GET /metrics\n"
        if request[:2] == [b"GET", b"/metrics"]:
            status, body = "200 OK", self._read().encode()
        yield (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode()
        yield body
