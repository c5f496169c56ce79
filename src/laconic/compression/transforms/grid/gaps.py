"""Gaps between kept values as a symbol for the entropy coder and low bits as they are.

A block's gaps are shifted by its own mean, so that blocks of every density share their frequencies; what is
left goes to one of few buckets: eight of one gap, then two an octave. Within a bucket of a geometric
distribution all gaps are nearly as likely, so its low bits need no model (at most 0.015 bits a gap are
lost).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Codes
from laconic.errors import Malformed

Integers = NDArray[np.int64]

SINGLE = 8
"""Symbols below this stand for one shifted gap."""

ALPHABET = 84
"""Symbols reach shifted gaps of 2**41, beyond any tensor."""

CONTEXTS = 12

_SYMBOLS = np.arange(ALPHABET)
_OCTAVE = np.maximum((_SYMBOLS - SINGLE) // 2, -1)
EXTRA: Integers = np.where(_SYMBOLS < SINGLE, 0, _OCTAVE + 2)
"""How many low bits follow a symbol."""

BASE: Integers = np.where(_SYMBOLS < SINGLE, _SYMBOLS, (2 + (_SYMBOLS & 1)) << EXTRA)
"""The smallest shifted gap of a symbol."""


def density(cells: int, kept: int) -> tuple[int, int]:
    """Shift and context of the gaps in a block that keeps `kept` (at least 1) of `cells` values.

    Mean gaps after the shift lie between 2 and 4; blocks with more than a quarter kept are not shifted. The
    context is the shifted mean, in quarters from 1 on.
    """
    shift = max((cells // kept).bit_length() - 2, 0)
    return shift, (4 * cells // kept >> shift) - 4


def alphabet_of(longest: int) -> int:
    """One above the symbol of the longest shifted gap that is possible."""
    octave = longest.bit_length() - 4
    symbol = longest if longest < SINGLE else SINGLE + 2 * octave + (longest >> octave + 2 & 1)
    return symbol + 1


def symbols_of(shifted: Integers) -> Codes:
    """The bucket of each shifted gap."""
    # Exact: gaps are below 2**41, and frexp does not round.
    octave = np.frexp(shifted.astype(np.float64))[1].astype(np.int64) - 4
    wide = SINGLE + 2 * octave + (shifted >> np.maximum(octave + 2, 0) & 1)
    return np.where(shifted < SINGLE, shifted, wide).astype(np.uint8)


def pack_widths(numbers: Integers, widths: Integers) -> bytes:
    """Numbers one after another, each in as many bits as it is wide, lowest bit first."""
    ends = np.cumsum(widths)
    total = int(ends[-1]) if ends.size else 0
    bits = np.zeros(total, np.uint8)
    starts = ends - widths
    for b in range(int(widths.max(initial=0))):
        wide = np.flatnonzero(widths > b)
        bits[starts[wide] + b] = numbers[wide] >> b & 1
    return np.packbits(bits, bitorder="little").tobytes()


@dataclass(slots=True)
class WidthReader:
    """The inverse of `pack_widths`, piece by piece."""

    data: memoryview
    at: int = 0

    def numbers(self, widths: Integers) -> Integers:
        """The next numbers; widths are at most 56. Raises `Malformed` where the bits end."""
        ends = np.cumsum(widths) + self.at
        stop = int(ends[-1]) if ends.size else self.at
        if stop > 8 * len(self.data):
            raise Malformed("low bits of a grid", value=8 * len(self.data), limit=stop)
        first = self.at // 8
        piece = bytes(self.data[first : (stop + 7) // 8]) + bytes(8)
        # Every byte begins a word of 64 bits: the one in which a number begins holds all of it.
        words: NDArray[np.uint64] = np.ndarray((len(piece) - 7,), "<u8", piece, strides=(1,))
        starts = ends - widths - 8 * first
        self.at = stop
        numbers = words[starts >> 3] >> (starts & 7).astype(np.uint64)
        low: Integers = numbers.astype(np.int64) & (1 << widths) - 1
        return low

    def bits(self, count: int) -> Codes:
        """The next `count` single bits. Raises `Malformed` where they end."""
        stop = self.at + count
        if stop > 8 * len(self.data):
            raise Malformed("low bits of a grid", value=8 * len(self.data), limit=stop)
        first = self.at // 8
        piece = np.frombuffer(self.data[first : (stop + 7) // 8], np.uint8)
        begin, self.at = self.at - 8 * first, stop
        return np.unpackbits(piece, count=begin + count, bitorder="little")[begin:]

    def finish(self) -> None:
        """Check that only padding of zero bits is left. Raises `Malformed`."""
        if (self.at + 7) // 8 != len(self.data) or (self.at % 8 and self.data[-1] >> self.at % 8):
            raise Malformed("end of the low bits of a grid", value=len(self.data), limit=(self.at + 7) // 8)
