"""Coder 0x30 `raw`: one byte a code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from laconic.compression.bits import Codes
from laconic.compression.wire import Reader
from laconic.errors import Malformed


@dataclass(frozen=True, slots=True)
class RawStream:
    """A view of `count` bytes."""

    data: memoryview
    width: int
    coder: str = "raw"

    def codes(self) -> Codes:
        """The bytes themselves. Raises `Malformed` for one that does not fit the width."""
        return checked(np.frombuffer(self.data, np.uint8), self.width)


@dataclass(frozen=True, slots=True)
class Raw:
    """One byte a code; no length, since count and width say it."""

    number: int = 0x30
    name: str = "raw"

    def encode(self, codes: Codes, width: int, level: int) -> bytes:
        """`codes` as they are."""
        return codes.tobytes()

    def read(self, reader: Reader, count: int, width: int) -> RawStream:
        """Take `count` bytes."""
        return RawStream(reader.take(count, "raw codes"), width)


RAW = Raw()


def checked(codes: Codes, width: int) -> Codes:
    """`codes`, once each is known to be below `2 ** width`. Raises `Malformed`."""
    if width < 8 and codes.size and int(codes.max()) >> width:
        raise Malformed("code", value=int(codes.max()), limit=(1 << width) - 1)
    return codes
