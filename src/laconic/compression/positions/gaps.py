"""Positions 0x21 `gaps`: distances between kept values, in bytes with an escape.

A gap is the number of values left out since the previous kept one. It is written as `gap // 255` bytes of
255, then one byte `gap % 255`. Rows and columns of a weight matrix make gaps repeat, which zstd exploits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression import native
from laconic.compression.bits import Mask
from laconic.compression.coders import read_codes, write_codes
from laconic.compression.stages import Stream
from laconic.compression.wire import Reader, varint
from laconic.errors import Malformed

ESCAPE = 255


@dataclass(frozen=True, slots=True)
class GapPositions:
    """Gaps as they lie in a frame."""

    stream: Stream
    values: int
    kept: int

    @property
    def coder(self) -> str:
        """Name of the coder behind."""
        return self.stream.coder

    def mask(self) -> Mask:
        """The positions, as a mask. Raises `Malformed`."""
        return mask_of(self.positions(), self.values)

    def positions(self) -> NDArray[np.int64]:
        """From the running sum of gaps. Raises `Malformed` when they leave the tensor."""
        codes = self.stream.codes()
        if native.ready_for_values(codes.size):
            from laconic.compression.native.sparse import positions_of

            positions, count = positions_of(codes, self.kept)
            if count != self.kept or codes[-1] == ESCAPE:
                raise Malformed("number of gaps", value=count, limit=self.kept)
            return inside(positions, self.values)
        ends = np.flatnonzero(codes != ESCAPE)
        if ends.size != self.kept or ends[-1] != codes.size - 1:
            raise Malformed("number of gaps", value=ends.size, limit=self.kept)
        # At most 255 * size, and `read` has bounded the size: the sum fits 64 bits.
        positions = np.cumsum(codes, dtype=np.int64).take(ends)
        positions += np.arange(self.kept)
        return inside(positions, self.values)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Best below one value kept in ten; not allowed above one in eight, where a bitmap is never larger."""

    number: int = 0x21
    name: str = "gaps"

    def encode(self, positions: NDArray[np.int64], values: int, level: int) -> bytes | None:
        """The varint number of bytes, then the bytes as codes of 8 bits through the smallest coder."""
        if positions.size > most_kept(values):
            return None
        gaps = gaps_of(positions)
        escapes = gaps // ESCAPE
        ends = np.cumsum(escapes + 1) - 1
        escaped = np.full(int(ends[-1]) + 1, ESCAPE, np.uint8)
        escaped[ends] = gaps - ESCAPE * escapes
        return varint(escaped.size) + write_codes(escaped, 8, level)

    def read(self, reader: Reader, values: int, kept: int) -> GapPositions:
        """Take the number of bytes and the codes. Raises `Malformed` beyond what `kept` gaps can need."""
        if kept > most_kept(values):
            raise Malformed("kept values for gaps", value=kept, limit=most_kept(values))
        count = reader.varint("length of gaps", limit=kept + values // ESCAPE)
        if count < kept:
            raise Malformed("length of gaps", value=count, limit=f"at least {kept}")
        return GapPositions(read_codes(reader, count, 8), values, kept)


def most_kept(values: int) -> int:
    """How many values of a tensor may be kept when their positions are listed: bounds scratch memory."""
    return (values + 7) // 8


def gaps_of(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many values are left out before each of the rising positions."""
    gaps = positions.copy()
    gaps[1:] -= positions[:-1] + 1
    return gaps


def inside(positions: NDArray[np.int64], values: int) -> NDArray[np.int64]:
    """Rising `positions`, not empty, once the last is known to lie in the tensor. Raises `Malformed`."""
    if positions[-1] >= values:
        raise Malformed("last kept position", value=int(positions[-1]), limit=values - 1)
    return positions


def mask_of(positions: NDArray[np.int64], values: int) -> Mask:
    """Positions as a mask of shape `(values,)`."""
    mask = np.zeros(values, np.bool_)
    mask[positions] = True
    return mask
