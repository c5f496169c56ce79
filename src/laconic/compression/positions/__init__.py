"""The position coders, and the choice among them by measuring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from laconic.compression.coders import FASTEST
from laconic.compression.positions.bitmap import Bitmap
from laconic.compression.positions.gaps import Gaps
from laconic.compression.positions.rice import Rice
from laconic.compression.stages import PositionCoder, PositionSet, Registry
from laconic.compression.wire import Reader

GAPS = Gaps()
POSITIONS: Registry[PositionCoder] = Registry("position coder", range(0x20, 0x30), (Bitmap(), GAPS, Rice()))

_LONG = 1 << 7
"""Kept values from which on gaps are shorter than a Rice code on real updates."""


def write_positions(positions: NDArray[np.int64], values: int, level: int) -> bytes:
    """Positions to the number of the coder that makes the fewest bytes, and those bytes.

    `positions`: rising, at least one, each below `values`. `level` is zstd's. The lowest number wins a tie.
    """
    # To try each coder on millions takes longer than all else; gaps are the smallest of few, or nearly so.
    few = level == FASTEST and _LONG < positions.size < values // 16
    tried = [coder for coder in POSITIONS if not few or coder is GAPS]
    written = [bytes([c.number]) + b for c in tried if (b := c.encode(positions, values, level)) is not None]
    return min(written, key=len)


def read_positions(reader: Reader, values: int, kept: int) -> tuple[PositionCoder, PositionSet]:
    """The inverse of `write_positions`, up to the work itself. Raises `WireError`."""
    coder = POSITIONS.read(reader)
    return coder, coder.read(reader, values, kept)
