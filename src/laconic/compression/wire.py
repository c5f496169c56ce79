"""Bounds-checked reading and writing of a frame's scalars: bytes, varints, float32."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from laconic.errors import Malformed, NonFinite

MAX_VARINT = (1 << 40) - 1
"""The largest number in a frame: no tensor is longer, and sums of such numbers fit 64 bits."""

MIN_SCALE = 2.0**-126
"""The smallest normal float32. Subnormal scales are refused: some processors flush them to zero."""


def varint(number: int) -> bytes:
    """An unsigned LEB128 number: seven bits a byte, lowest first, the top bit says that more follow."""
    if not 0 <= number <= MAX_VARINT:
        raise ValueError(f"varint out of range: {number}")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def float32(number: float) -> bytes:
    """Four bytes, little-endian."""
    return struct.pack("<f", number)


@dataclass(slots=True)
class Reader:
    """A cursor over hostile bytes: every read is checked, nothing is copied."""

    data: memoryview
    at: int = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.at

    def take(self, count: int, thing: str) -> memoryview:
        """The next `count` bytes. Raises `Malformed` when there are fewer."""
        start = self.at
        stop = start + count
        if stop > len(self.data):
            raise Malformed(f"frame ends inside {thing}", value=self.left, limit=count)
        self.at = stop
        return self.data[start:stop]

    def byte(self, thing: str) -> int:
        """One unsigned byte."""
        at = self.at
        if at >= len(self.data):
            raise Malformed(f"frame ends inside {thing}", value=0, limit=1)
        self.at = at + 1
        return self.data[at]

    def varint(self, thing: str, limit: int = MAX_VARINT) -> int:
        """An unsigned LEB128 number, in its shortest form. Raises `Malformed` beyond `limit`."""
        number = shift = 0
        while True:
            byte = self.byte(thing)
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 35:
                raise Malformed(f"varint of {thing} is too long", limit="6 bytes")
        if shift and not byte:
            raise Malformed(f"varint of {thing} is not in its shortest form")
        if number > limit:
            raise Malformed(thing, value=number, limit=limit)
        return number

    def scale(self, thing: str) -> float:
        """A float32 scale: finite, positive and normal. Raises `NonFinite` or `Malformed`."""
        (number,) = struct.unpack("<f", self.take(4, thing))
        if not math.isfinite(number):
            raise NonFinite(thing, value=number)
        if number < MIN_SCALE:
            raise Malformed(thing, value=number, limit=f"at least {MIN_SCALE!r}")
        return float(number)
