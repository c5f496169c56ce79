"""Updates that are still arriving, in bounded memory: chunks of many devices, one update each."""

from __future__ import annotations

from typing import Final

from laconic.errors import LimitExceeded
from laconic.protocol.chunks import Assembly, whole
from laconic.protocol.messages import Fin

_ARRIVAL_BYTES: Final = 512
"""What a device costs that has sent no more than an empty chunk."""


class Inbox:
    """Chunks by device.

    Nothing here is durable and nothing needs to be: a device keeps its update until it is told `committed`,
    and sends again the chunks that it is told are missing.
    """

    def __init__(self, *, update_limit_bytes: int, total_limit_bytes: int) -> None:
        """`update_limit_bytes` is the longest update of any campaign."""
        self._update_limit_bytes = update_limit_bytes
        self._total_limit_bytes = total_limit_bytes
        self._arriving: dict[str, tuple[str, Assembly]] = {}
        self._total_bytes = 0

    def add(self, device: str, update: str, index: int, piece: bytes) -> None:
        """Take a chunk. A new update replaces the device's older one; the oldest of all gives way to memory.

        Raises `LimitExceeded` for a chunk or an update over its limit.
        """
        assembly = self._of(device, update)
        before = assembly.cost_bytes
        try:
            assembly.add(index, piece)
        finally:
            self._total_bytes += assembly.cost_bytes - before
            while self._total_bytes > self._total_limit_bytes and len(self._arriving) > 1:
                oldest = next(name for name in self._arriving if name != device)
                self.discard(oldest)

    def missing(self, device: str, update: str, fin: Fin, *, limit_bytes: int) -> list[int]:
        """Which chunks of a promised update are not here; none of one that its promise carries.

        Raises `LimitExceeded` for a promise of more than `limit_bytes`.
        """
        if fin.size > limit_bytes or fin.chunks > max(1, fin.size):
            raise LimitExceeded(
                "size of an update in bytes", value=f"{fin.size} in {fin.chunks} chunks", limit=limit_bytes
            )
        if fin.frame:
            return []
        held = self._arriving.get(device)
        if held is None or held[0] != update:
            return list(range(fin.chunks))
        return held[1].missing(fin.chunks)

    def take(self, device: str, fin: Fin) -> bytes:
        """The whole update, which leaves the inbox whatever comes of it.

        Raises `Malformed` or `ChecksumMismatch` when it is not what was promised.
        """
        if fin.frame:
            self.discard(device)
            return whole(fin.frame, size=fin.size, sha256=fin.sha256)
        _, assembly = self._arriving[device]
        self.discard(device)
        return assembly.join(size=fin.size, chunks=fin.chunks, sha256=fin.sha256)

    def discard(self, device: str) -> None:
        """Forget what has arrived of a device's update."""
        held = self._arriving.pop(device, None)
        if held is not None:
            self._total_bytes -= _ARRIVAL_BYTES + held[1].cost_bytes

    def _of(self, device: str, update: str) -> Assembly:
        held = self._arriving.get(device)
        if held is not None and held[0] == update:
            return held[1]
        self.discard(device)
        assembly = Assembly(limit_bytes=self._update_limit_bytes)
        self._arriving[device] = (update, assembly)
        self._total_bytes += _ARRIVAL_BYTES
        return assembly
