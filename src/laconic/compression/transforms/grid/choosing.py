"""Which level each value of a grid takes, at the costs that follow from the levels before.

Logarithms are taken of tables alone, by NumPy; what is done for each value are sums, products and
comparisons, which a compiled kernel (`laconic.compression.native.choice`) rounds in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.transforms.grid.gaps import Integers
from laconic.compression.transforms.grid.steps import LISTED, MAX_RUNGS, Levels
from laconic.schema import Vector

_MOST_LIKELY = -0.7
"""Rows times columns may say more than a certainty; a place is never taken to be likelier than 2**-0.7."""

_PARTS = 32
_LEFT_OUT = np.log2(1 - np.exp2(-(np.arange(_PARTS * 32) + 0.5) / _PARTS)).astype(np.float32)
"""Bits, less than 0, of a value that is left out where one is kept with a probability of `2**-(i / 32)`."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Values that may be kept, all of shape `(candidates,)`.

    `magnitudes`: float32, in steps; `nearest`: int16, the levels nearest to them, from 1 on.
    """

    magnitudes: Vector
    nearest: Levels
    negative: NDArray[np.bool_]
    rows: Integers
    columns: Integers

    @classmethod
    def of(
        cls, magnitudes: Vector, negative: NDArray[np.bool_], positions: Integers, columns: int
    ) -> Candidates:
        """Those at `positions` of a tensor in rows of `columns`."""
        nearest = np.clip(np.rint(magnitudes), 1, MAX_RUNGS).astype(np.int16)
        rows = positions // columns
        return cls(magnitudes, nearest, negative, rows, positions - rows * columns)

    def among(self, chosen: Integers) -> Candidates:
        """Those at `chosen`."""
        return Candidates(
            self.magnitudes[chosen],
            self.nearest[chosen],
            self.negative[chosen],
            self.rows[chosen],
            self.columns[chosen],
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """How many values are kept: int64, by level (0 to 256), by row, negative ones by row, by column.

    `sums`: float64, the magnitudes at each level.
    """

    levels: Integers
    sums: NDArray[np.float64]
    rows: Integers
    negative: Integers
    columns: Integers


@dataclass(frozen=True, slots=True)
class Costs:
    """What a value stands for at each level, and what it costs to keep it: float32.

    A value's bits are those of its level (`levels`), of its sign in its row (`signs`, shape `(rows, 2)`), and
    of its place, the binary logarithm of whose likelihood is the sum of `rows` and `columns`.
    """

    centres: Vector
    levels: Vector
    signs: Vector
    rows: Vector
    columns: Vector


def cheaper(
    values: Candidates, levels: Levels, shape: tuple[int, int], price: float, *, natively: bool
) -> Levels:
    """Levels again, each of the least squared error plus `price` times bits, at the costs of `levels`.

    `levels`: int16, not all of them 0; `shape`: the tensor's rows and columns; `price`: squared steps a bit.
    """
    if natively:
        from laconic.compression.native.choice import chosen_natively, tallied_natively

        costs = _costs(Tally(*tallied_natively(values, levels, shape, MAX_RUNGS + 2)))
        return chosen_natively(values, costs, _LEFT_OUT, _PARTS, _MOST_LIKELY, price)
    return _chosen(values, _costs(_tallied(values, levels, shape)), np.float32(price))


def _tallied(values: Candidates, levels: Levels, shape: tuple[int, int]) -> Tally:
    kept = np.flatnonzero(levels)
    level, row = levels[kept], values.rows[kept]
    return Tally(
        np.bincount(level, minlength=MAX_RUNGS + 2),
        np.bincount(level, weights=values.magnitudes[kept], minlength=MAX_RUNGS + 2).astype(np.float64),
        np.bincount(row, minlength=shape[0]),
        np.bincount(row[values.negative[kept]], minlength=shape[0]),
        np.bincount(values.columns[kept], minlength=shape[1]),
    )


def _costs(tally: Tally) -> Costs:
    counts, kept = tally.levels, int(tally.levels.sum())
    centres = np.arange(counts.size, dtype=np.float32)
    low = slice(1, LISTED)
    centres[low] = np.where(counts[low] > 0, tally.sums[low] / np.maximum(counts[low], 1), centres[low])
    # If rows and columns are independent.
    rows = np.log2(tally.rows + 0.1).astype(np.float32)
    columns = (np.log2(tally.columns + 0.1) - np.log2(kept + 1)).astype(np.float32)
    # A row's kept values may agree in their sign.
    share = (tally.negative + 0.8) / (tally.rows + 1.6)
    signs = -np.log2(np.stack([1 - share, share], 1)).astype(np.float32)
    # A level that never came costs 3 bits more than one that came once.
    return Costs(centres, np.log2(kept / np.maximum(counts, 0.125)).astype(np.float32), signs, rows, columns)


def _chosen(values: Candidates, costs: Costs, price: np.float32) -> Levels:
    likely = costs.rows[values.rows] + costs.columns[values.columns]
    np.minimum(likely, np.float32(_MOST_LIKELY), out=likely)
    part = np.minimum((likely * np.float32(-_PARTS)).astype(np.int64), _LEFT_OUT.size - 1)
    bits = _LEFT_OUT[part] - likely + costs.signs.ravel()[2 * values.rows + values.negative]
    best, result = np.square(values.magnitudes), np.zeros_like(values.nearest)
    for level in (values.nearest, np.maximum(values.nearest - 1, 1)):
        cost = np.square(values.magnitudes - costs.centres[level]) + price * (bits + costs.levels[level])
        better = cost < best
        np.copyto(best, cost, where=better)
        np.copyto(result, level, where=better)
    return result
