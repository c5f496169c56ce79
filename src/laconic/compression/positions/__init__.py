"""The position coders, and the choice among them by measuring."""

from __future__ import annotations

import numpy as np

from laconic.compression.bits import Mask
from laconic.compression.coders import FASTEST
from laconic.compression.positions.bitmap import Bitmap
from laconic.compression.positions.gaps import Gaps
from laconic.compression.positions.rice import Rice
from laconic.compression.stages import PositionCoder, PositionSet, Registry
from laconic.compression.wire import Reader

GAPS = Gaps()
POSITIONS: Registry[PositionCoder] = Registry("position coder", range(0x20, 0x30), (Bitmap(), GAPS, Rice()))

_LONG = 1 << 10


def write_positions(mask: Mask, level: int) -> tuple[PositionCoder, bytes]:
    """A mask with at least one kept value to the coder that makes the fewest bytes, and those bytes.

    `mask`: bool, shape `(values,)`. `level` is zstd's. The lowest number wins a tie.
    """
    # To try each coder on millions takes longer than all else; gaps are the smallest of few, or nearly so.
    few = level == FASTEST and _LONG < np.count_nonzero(mask) < mask.size // 16
    tried = [coder for coder in POSITIONS if not few or coder is GAPS]
    written = [(coder, body) for coder in tried if (body := coder.encode(mask, level)) is not None]
    coder, body = min(written, key=lambda pair: len(pair[1]))
    return coder, bytes([coder.number]) + body


def read_positions(reader: Reader, values: int, kept: int) -> tuple[PositionCoder, PositionSet]:
    """The inverse of `write_positions`, up to the work itself. Raises `WireError`."""
    coder = POSITIONS.read(reader)
    return coder, coder.read(reader, values, kept)
