"""Levels of a grid by compiled kernels: what `grid.choosing` does with arrays of candidates, in two passes.

Arrays are those of `Candidates`, `Tally` and `Costs`. All arithmetic is float32, one rounding an operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression.native.compiling import (
    FLAGS,
    FLOAT,
    FLOATS,
    INTS,
    LEVELS,
    SUMS,
    compiled,
    readonly,
)

if TYPE_CHECKING:
    from laconic.compression.transforms.grid.choosing import Candidates, Costs

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
Sums: TypeAlias = NDArray[np.float64]
Levels: TypeAlias = NDArray[np.int16]
Flags: TypeAlias = NDArray[np.bool_]


@compiled(
    None,
    *(readonly(LEVELS), readonly(FLOATS), readonly(FLAGS), readonly(INTS), readonly(INTS)),
    *(INTS, SUMS, INTS, INTS, INTS),
)
def _tally(
    levels: Levels,
    magnitudes: Floats,
    negative: Flags,
    rows: Ints,
    columns: Ints,
    of_level: Ints,
    sums: Sums,
    of_row: Ints,
    negative_of_row: Ints,
    of_column: Ints,
) -> None:
    for i in range(levels.size):
        level = levels[i]
        if level:
            of_level[level] += 1
            sums[level] += magnitudes[i]
            of_row[rows[i]] += 1
            of_column[columns[i]] += 1
            if negative[i]:
                negative_of_row[rows[i]] += 1


@compiled(
    None,
    *(readonly(FLOATS), readonly(LEVELS), readonly(FLAGS), readonly(INTS), readonly(INTS)),
    *[readonly(FLOATS)] * 6,
    *(FLOAT, FLOAT, FLOAT, LEVELS),
)
def _choose(
    magnitudes: Floats,
    nearest: Levels,
    negative: Flags,
    rows: Ints,
    columns: Ints,
    centres: Floats,
    level_bits: Floats,
    sign_bits: Floats,
    of_row: Floats,
    of_column: Floats,
    left_out: Floats,
    parts: np.float32,
    most_likely: np.float32,
    price: np.float32,
    out: Levels,
) -> None:
    for i in range(magnitudes.size):
        row, magnitude = rows[i], magnitudes[i]
        likely = min(of_row[row] + of_column[columns[i]], most_likely)
        part = min(int(likely * parts), left_out.size - 1)
        bits = left_out[part] - likely + sign_bits[2 * row + negative[i]]
        best, chosen = magnitude * magnitude, 0
        level = int(nearest[i])
        for _ in range(2):
            off = magnitude - centres[level]
            cost = off * off + price * (bits + level_bits[level])
            if cost < best:
                best, chosen = cost, level
            level = max(level - 1, 1)
        out[i] = chosen


def tallied_natively(
    values: Candidates, levels: Levels, shape: tuple[int, int], most: int
) -> tuple[Ints, Sums, Ints, Ints, Ints]:
    """The members of a `Tally`; levels are below `most`."""
    rows, columns = shape
    tally = (
        np.zeros(most, np.int64),
        np.zeros(most, np.float64),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.zeros(columns, np.int64),
    )
    _tally(levels, values.magnitudes, values.negative, values.rows, values.columns, *tally)
    return tally


def chosen_natively(
    values: Candidates, costs: Costs, left_out: Floats, parts: int, most_likely: float, price: float
) -> Levels:
    """The level of least cost for each candidate, or 0; `left_out`: by `parts` of a binary logarithm."""
    out = np.empty_like(values.nearest)
    _choose(
        *(values.magnitudes, values.nearest, values.negative, values.rows, values.columns),
        *(costs.centres, costs.levels, costs.signs.ravel(), costs.rows, costs.columns, left_out),
        *(np.float32(-parts), np.float32(most_likely), np.float32(price), out),
    )
    return out
