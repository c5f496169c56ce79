"""Chunking: cut bytes into messages, and put them together again whatever the order, loss or repetition."""

from __future__ import annotations

import hashlib
from itertools import islice
from typing import Final

from laconic.errors import ChecksumMismatch, LimitExceeded, Malformed

MIN_CHUNK_BYTES: Final = 256
MAX_CHUNK_BYTES: Final = 64 * 1024
DEFAULT_CHUNK_BYTES: Final = 48 * 1024
_ENTRY_BYTES: Final = 64
"""An empty piece costs memory too: each piece is charged for its place in the table."""


def split(data: bytes, chunk_bytes: int) -> list[bytes]:
    """`data` in pieces of `chunk_bytes` (the last may be shorter); no data is one empty piece."""
    return [data[i : i + chunk_bytes] for i in range(0, len(data), chunk_bytes)] or [b""]


class Assembly:
    """Pieces of one blob as they arrive.

    Memory is bounded by `limit_bytes` whatever arrives; a piece that arrives twice is held once.
    """

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._pieces: dict[int, bytes] = {}
        self._first_missing = 0
        """All before it are here."""
        self.held_bytes = 0

    def add(self, index: int, piece: bytes) -> None:
        """Take a piece.

        Raises `LimitExceeded` when a piece, or all pieces together, are larger than allowed.
        """
        if len(piece) > MAX_CHUNK_BYTES:
            raise LimitExceeded(f"size of chunk {index} in bytes", value=len(piece), limit=MAX_CHUNK_BYTES)
        if index > self._limit_bytes:
            raise LimitExceeded("index of a chunk", value=index, limit=self._limit_bytes)
        held = self.held_bytes - len(self._pieces.get(index, b"")) + len(piece)
        entries = len(self._pieces) + (index not in self._pieces)
        if held + _ENTRY_BYTES * entries > self._limit_bytes + 64 * 1024:
            raise LimitExceeded("bytes in chunks", value=held, limit=self._limit_bytes)
        self._pieces[index] = piece
        self.held_bytes = held

    @property
    def cost_bytes(self) -> int:
        """Memory that the pieces take, about."""
        return self.held_bytes + _ENTRY_BYTES * len(self._pieces)

    def missing(self, chunks: int, *, most: int | None = None) -> list[int]:
        """Which of `chunks` pieces have not arrived, in order; of those the first `most`."""
        while self._first_missing in self._pieces:
            self._first_missing += 1
        rest = (i for i in range(self._first_missing, chunks) if i not in self._pieces)
        return list(islice(rest, most))

    def join(self, *, size: int, chunks: int, sha256: bytes) -> bytes:
        """The blob, once nothing is missing.

        Raises `Malformed` when the pieces are not `size` bytes, `ChecksumMismatch` when they are others
        than those promised.
        """
        return whole(b"".join(self._pieces[i] for i in range(chunks)), size=size, sha256=sha256)


def whole(data: bytes, *, size: int, sha256: bytes) -> bytes:
    """`data` itself, once it is known to be what was promised.

    Raises `Malformed` when it is not `size` bytes, `ChecksumMismatch` when they are others.
    """
    if len(data) != size:
        raise Malformed("size of an assembled blob in bytes", value=len(data), limit=size)
    found = hashlib.sha256(data).digest()
    if found != sha256:
        raise ChecksumMismatch("sha256 of an assembled blob", value=found.hex(), limit=sha256.hex())
    return data
