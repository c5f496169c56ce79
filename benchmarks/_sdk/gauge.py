"""A door to the broker that counts what a device's radio would carry, whatever the device itself knows."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Final

# struct tcp_info of linux/tcp.h, seen from this side of the device's connection.
_ACKED: Final = 120
_RECEIVED: Final = 128
_PINGS: Final = (b"\xc0\x00", b"\xd0\x00")
"""PINGREQ and PINGRESP, where they come alone (MQTT 3.1.1, sections 3.12 and 3.13)."""


class Gauge:
    """Between one device and a broker on 127.0.0.1: counts what has reached the other side, as TCP has it."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._done = 0
        self.ping_bytes = 0
        """Of pings that are not within TLS, both ways."""
        self._open: set[socket.socket] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Gauge:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def bytes(self) -> int:
        """Up plus down so far, over all connections."""
        return self._done + sum(_bytes_of(s) for s in self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        # asyncio closes its own as soon as the device's end breaks, and the figures with it.
        mine = writer.get_extra_info("socket").dup()
        self._open.add(mine)
        try:
            await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
        finally:
            self._open.discard(mine)
            self._done += _bytes_of(mine)
            mine.close()
            there_writer.close()
            writer.close()
            self._pumps.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.ping_bytes += len(data) if data in _PINGS else 0
                writer.write(data)
                await writer.drain()
        writer.close()


def _bytes_of(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    received: int = struct.unpack_from("=Q", info, _RECEIVED)[0]
    acked: int = struct.unpack_from("=Q", info, _ACKED)[0]
    return received + acked
