"""MQTT through a WebSocket, for networks that let nothing but HTTP out (MQTT 3.1.1, section 6; RFC 6455).

The frames are made and read by the library `websockets`, without its own input and output: what lies below
is asyncio's transport, as for a plain connection, so that bytes are counted where they are for that.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from laconic.errors import ConfigError
from laconic.transport.connection import Connection

_MESSAGE_LIMIT_BYTES: Final = 2**20
"""A message of the broker's side at most; an MQTT packet may span several."""
_PONGS_LIMIT_BYTES: Final = 2**16
"""Answers to pings that may wait to be sent: some five hundred of the longest."""
_SUBPROTOCOL: Final = "mqtt"


def check_installed() -> None:
    """Raises `ConfigError` where the library lacks."""
    try:
        import websockets.client  # noqa: F401
    except ModuleNotFoundError as e:
        raise ConfigError("websockets is not installed", remedy="pip install 'laconic[websockets]'") from e


class WebSocket(asyncio.Protocol, asyncio.Transport):
    """Between a transport and an MQTT connection: a protocol to the one, a transport to the other.

    What is written before the broker has agreed to the WebSocket waits until it has.
    """

    def __init__(self, inner: Connection, uri: str) -> None:
        """`uri`: `ws://host:port/path`, or `wss://` over a transport that is encrypted already."""
        from websockets.client import ClientProtocol
        from websockets.typing import Subprotocol
        from websockets.uri import parse_uri

        self._inner = inner
        self._below: Any = None
        self._frames = ClientProtocol(
            parse_uri(uri), subprotocols=[Subprotocol(_SUBPROTOCOL)], max_size=_MESSAGE_LIMIT_BYTES
        )
        self._agreed = False
        self._early: list[bytes] = []
        self._pongs_bytes = 0
        """Since all that was written had been sent."""

    # --- asyncio, from below

    def connection_made(self, transport: Any) -> None:
        self._below = transport
        self._frames.send_request(self._frames.connect())
        self._pass_down()
        self._inner.connection_made(self)

    def data_received(self, data: bytes) -> None:
        from websockets.frames import Frame, Opcode

        self._frames.receive_data(data)
        for event in self._frames.events_received():
            if not isinstance(event, Frame):
                self._answered()
            elif event.opcode in (Opcode.BINARY, Opcode.CONT):
                self._inner.data_received(bytes(event.data))
            elif event.opcode is Opcode.TEXT:
                self._inner.abort("the broker sent text through the WebSocket")
            elif event.opcode is Opcode.PING:
                self._pongs_bytes += len(event.data)
        if (e := self._frames.handshake_exc) is not None:
            # A portal that wants a login answers so, and proxies that know no WebSocket.
            self._inner.abort(f"no WebSocket: {e}")
            return
        self._pass_down()
        if not self._below.get_write_buffer_size():
            self._pongs_bytes = 0
        elif self._pongs_bytes > _PONGS_LIMIT_BYTES:
            self._inner.abort("the broker asks for signs of life and does not listen to them")
        if self._frames.close_expected():
            self._below.close()

    def eof_received(self) -> None:
        self._frames.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._agreed:
            # What the other side says when it closes, or what was wrong with its frames.
            closed, wrong = self._frames.close_rcvd, self._frames.parser_exc
            if closed is not None:
                exc = ConnectionError(f"WebSocket closed: the broker said {closed}")
            elif wrong is not None and not isinstance(wrong, EOFError):
                exc = ConnectionError(f"WebSocket closed: {wrong}")
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    # --- a transport, to above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._agreed:
            self._early.append(bytes(data))
        elif not self.is_closing():
            self._frames.send_binary(bytes(data))
            self._pass_down()

    def close(self) -> None:
        if self._agreed and not self.is_closing():
            self._frames.send_close(1000)
            self._pass_down()
        self._below.close()

    def abort(self) -> None:
        self._below.abort()

    def is_closing(self) -> bool:
        from websockets.protocol import State

        closing = self._below.is_closing() or self._frames.state in (State.CLOSING, State.CLOSED)
        return bool(closing)

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)

    def _answered(self) -> None:
        """The broker has answered the request; when it has agreed, what waited goes out."""
        if self._frames.handshake_exc is None:
            self._agreed = True
            early, self._early = b"".join(self._early), []
            if early:
                self.write(early)

    def _pass_down(self) -> None:
        for data in self._frames.data_to_send():
            if data:
                self._below.write(data)
            elif self._below.can_write_eof():
                self._below.write_eof()
