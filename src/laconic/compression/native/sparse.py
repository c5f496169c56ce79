"""The loops of sparse updates, compiled: codes out of bits, gaps to positions, rungs to values, the sum.

NumPy takes these loops too, in a pass for each of their steps; here they are one pass each. What they compute
is defined by `bits.unpack`, `positions.gaps`, `quantisers.ladder` and `laconic.coordinator.fold`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Codes, packed_size
from laconic.compression.native.compiling import (
    BYTES,
    DOUBLE,
    FLOATS,
    INT,
    INTS,
    compiled,
    part,
    readonly,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

# Of the frame and of the fold; written here because compiled code is kept by this file's age alone.
ESCAPE = 255
ROUND = 1.5 * 2.0**52


@part
def wide(value: Any) -> int:
    """An element of an array as int64, which kernels compute with."""
    return int(np.int64(value))


@compiled(None, readonly(BYTES), INT, BYTES)
def _unpack(raw: Codes, width: int, out: Codes) -> None:
    mask = (1 << width) - 1
    held = bits = at = 0
    for i in range(out.size):
        if bits < width:
            held |= wide(raw[at]) << bits
            at += 1
            bits += 8
        out[i] = held & mask
        held >>= width
        bits -= width


@compiled(INT, readonly(BYTES), INTS)
def _positions(codes: Codes, out: Ints) -> int:
    # Without a branch, which would be mispredicted; the last place of `out` is for what is too much.
    ends, position, spare = 0, -1, out.size - 1
    for i in range(codes.size):
        code = wide(codes[i])
        last = int(code != ESCAPE)
        position += code + last
        out[min(ends, spare)] = position
        ends += last
    return ends


@compiled(INT, readonly(BYTES), readonly(BYTES), readonly(FLOATS), FLOATS)
def _laddered(signs: Codes, levels: Codes, either: Floats, out: Floats) -> int:
    rungs = either.size // 2
    highest = 0
    for i in range(out.size):
        level = wide(levels[i])
        if level < rungs:
            out[i] = either[wide(signs[i]) * rungs + level]
        highest = max(highest, level)
    return highest


@compiled(None, readonly(INTS), readonly(FLOATS), DOUBLE, INTS)
def _add(positions: Ints, values: Floats, quanta: float, sums: Ints) -> None:
    for i in range(positions.size):
        # As in the fold: to the nearest integer, to the even one of two.
        sums[positions[i]] += np.int64((np.float64(values[i]) * quanta + ROUND) - ROUND)


def unpacked(raw: Codes, count: int, width: int) -> Codes:
    """As `bits.unpack`, of bytes that are known to be as many as `count` codes fill."""
    assert raw.size == packed_size(count, width)
    out = np.empty(count, np.uint8)
    _unpack(raw, width, out)
    return out


def positions_of(codes: Codes, kept: int) -> tuple[Ints, int]:
    """Positions by gaps in escaped bytes: shape `(kept,)`; and how many gaps there are, more or fewer."""
    out = np.empty(kept + 1, np.int64)
    count = int(_positions(codes, out))
    return out[:kept], count


def laddered(signs: Codes, levels: Codes, either: Floats) -> tuple[Floats, int]:
    """Values of signs and rungs, with the highest rung: of one that there is not the value is undefined.

    `either`: the magnitudes, and after them the same times -1.
    """
    out = np.empty(signs.size, np.float32)
    return out, int(_laddered(signs, levels, either, out))


def add(positions: Ints, values: Floats, quanta: float, sums: Ints) -> None:
    """Add to the sums at `positions` the values times `quanta`, each rounded, and below 2^51."""
    _add(positions, values, quanta, sums)
