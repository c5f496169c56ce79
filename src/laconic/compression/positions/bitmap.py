"""Positions 0x20 `bitmap`: one bit a value, 1 where the value is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Mask
from laconic.compression.coders import read_codes, write_codes
from laconic.compression.stages import Stream
from laconic.compression.wire import Reader
from laconic.errors import Malformed


@dataclass(frozen=True, slots=True)
class BitmapPositions:
    """A bitmap as it lies in a frame."""

    stream: Stream
    kept: int

    @property
    def coder(self) -> str:
        """Name of the coder behind."""
        return self.stream.coder

    def mask(self) -> Mask:
        """The bits, as bool. Raises `Malformed` when another number of them is set."""
        mask = self.stream.codes().view(np.bool_)
        count = int(np.count_nonzero(mask))
        if count != self.kept:
            raise Malformed("number of kept positions", value=count, limit=self.kept)
        return mask

    def positions(self) -> NDArray[np.int64]:
        """The same, as positions. Raises `Malformed`."""
        return np.flatnonzero(self.mask())


@dataclass(frozen=True, slots=True)
class Bitmap:
    """Best from about one value kept in ten; zstd finds the columns that repeat from row to row."""

    number: int = 0x20
    name: str = "bitmap"

    def encode(self, positions: NDArray[np.int64], values: int, level: int) -> bytes | None:
        """Codes of one bit, through the smallest coder."""
        codes = np.zeros(values, np.uint8)
        codes[positions] = 1
        return write_codes(codes, 1, level)

    def read(self, reader: Reader, values: int, kept: int) -> BitmapPositions:
        """Take the bitmap's codes."""
        return BitmapPositions(read_codes(reader, values, 1), kept)
