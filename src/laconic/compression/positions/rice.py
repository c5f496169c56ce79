"""Positions 0x22 `rice`: gaps in Golomb-Rice code, with no entropy coder behind it.

R. F. Rice, "Some practical universal noiseless coding techniques", JPL 79-22, 1979. For tiny tensors, where
an entropy coder's own header would outweigh the gaps. The unary and the binary parts stand in two streams of
their own, so that both are decoded without a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Mask, pack, packed_size, unpack
from laconic.compression.positions.gaps import gaps_of, inside, mask_of, most_kept
from laconic.compression.wire import Reader, varint
from laconic.errors import Malformed

MAX_SHIFT = 8


@dataclass(frozen=True, slots=True)
class RicePositions:
    """Rice-coded gaps as they lie in a frame."""

    unary: memoryview
    unary_bits: int
    binary: memoryview
    shift: int
    values: int
    kept: int
    coder: str = ""

    def mask(self) -> Mask:
        """The positions, as a mask. Raises `Malformed`."""
        return mask_of(self.positions(), self.values)

    def positions(self) -> NDArray[np.int64]:
        """From the running sum of gaps. Raises `Malformed` when they leave the tensor."""
        bits = unpack(self.unary, self.unary_bits, 1)
        # Counted before they are listed, which takes 8 bytes each; then in place, for the same reason.
        count = int(np.count_nonzero(bits))
        if count != self.kept or not bits[-1]:
            raise Malformed("number of Rice gaps", value=count, limit=self.kept)
        ends = np.flatnonzero(bits)
        del bits
        positions = np.diff(ends, prepend=-1)
        del ends
        positions -= 1
        positions <<= self.shift
        if self.shift:
            positions += unpack(self.binary, self.kept, self.shift)
        positions += 1
        np.cumsum(positions, out=positions)
        positions -= 1
        return inside(positions, self.values)


@dataclass(frozen=True, slots=True)
class Rice:
    """About log2(values / kept) + 1.5 bits a kept value."""

    number: int = 0x22
    name: str = "rice"

    def encode(self, positions: NDArray[np.int64], values: int, level: int) -> bytes | None:
        """The shift, the varint number of unary bits, the unary bits, the packed low bits."""
        if positions.size > most_kept(values):
            return None
        gaps = gaps_of(positions)
        costs = [int((gaps >> s).sum()) + gaps.size * (1 + s) for s in range(MAX_SHIFT + 1)]
        shift = int(np.argmin(costs))
        ends = np.cumsum((gaps >> shift) + 1) - 1
        bits = np.zeros(int(ends[-1]) + 1, np.uint8)
        bits[ends] = 1
        low = pack((gaps & (1 << shift) - 1).astype(np.uint8), shift) if shift else b""
        return bytes([shift]) + varint(bits.size) + pack(bits, 1) + low

    def read(self, reader: Reader, values: int, kept: int) -> RicePositions:
        """Take the parts. Raises `Malformed` beyond what `kept` gaps can need."""
        if kept > most_kept(values):
            raise Malformed("kept values for Rice gaps", value=kept, limit=most_kept(values))
        shift = reader.byte("shift of Rice gaps")
        if shift > MAX_SHIFT:
            raise Malformed("shift of Rice gaps", value=shift, limit=MAX_SHIFT)
        unary_bits = reader.varint("length of Rice gaps", limit=kept + (values >> shift))
        unary = reader.take(packed_size(unary_bits, 1), "unary part of Rice gaps")
        binary = reader.take(packed_size(kept, shift), "binary part of Rice gaps")
        return RicePositions(unary, unary_bits, binary, shift, values, kept)
