"""Counts the bytes of a TCP connection as the kernel does."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Final

# struct tcp_info of linux/tcp.h: eight bytes, then 24 words of 32 bits, then words of 64 bits.
_RECEIVED: Final = 128
_SENT: Final = 200
_SIZE: Final = 208
_LINUX: Final = sys.platform == "linux"


class SocketMeter:
    """Sums sent and received bytes over a client's successive connections.

    Linux counts for us (`TCP_INFO`): everything above TCP, so TLS records and handshakes too, and what was
    sent again, because that is paid for again. Elsewhere `supported` is False and the totals stay 0.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._up = self._down = 0
        self.supported = _LINUX

    def attach(self, sock: socket.socket) -> None:
        """Begin to count a new connection."""
        self.detach()
        self._socket = sock

    def detach(self) -> None:
        """Take the final figures of a connection that is about to close."""
        up, down = self._sample()
        self._up += up
        self._down += down
        self._socket = None

    def totals(self) -> tuple[int, int]:
        """Bytes sent and received so far."""
        up, down = self._sample()
        return self._up + up, self._down + down

    def _sample(self) -> tuple[int, int]:
        if self._socket is None or not self.supported:
            return 0, 0
        with contextlib.suppress(OSError):
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            if len(info) >= _SIZE:
                return struct.unpack_from("=Q", info, _SENT)[0], struct.unpack_from("=Q", info, _RECEIVED)[0]
            self.supported = False
        return 0, 0
