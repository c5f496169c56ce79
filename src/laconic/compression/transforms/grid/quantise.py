"""Values to levels of a grid: which ones are worth their bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.transforms.grid.gaps import Integers
from laconic.compression.transforms.grid.steps import MAX_RUNGS, Levels, Steps, fitted, grid_step
from laconic.schema import Vector

ROUNDS = 2
"""Passes of choosing levels at the densities of the pass before."""

_CERTAIN = 0.5
"""Below half a step nothing is kept: sending it would make the error larger."""

_FIRST = 0.6
_MOST_LIKELY = -0.7


@dataclass(frozen=True, slots=True)
class Kept:
    """The values of a tensor that are not zero.

    `positions`: int64, rising, shape `(kept,)`, not empty; `levels`: int16 of the same shape, none of them 0.
    """

    values: int
    positions: Integers
    levels: Levels

    @classmethod
    def of(cls, levels: NDArray[np.integer]) -> Kept:
        """From the levels of a whole tensor, zeros included: shape `(values,)`, from -255 to 255."""
        positions = np.flatnonzero(levels)
        return cls(levels.size, positions, levels[positions].astype(np.int16))

    def dense(self) -> Levels:
        """The inverse of `of`."""
        levels = np.zeros(self.values, np.int16)
        levels[self.positions] = self.levels
        return levels


def quantise(tensor: Vector, columns: int, step: float, price: float) -> tuple[Kept, Steps] | None:
    """The levels of least error plus cost, as far as each can be chosen for itself.

    `tensor`: finite float32, shape `(values,)`; `columns` divides `values`; `step` positive; `price`:
    squared error, in squared steps, that one bit is worth; 0 for none (then the threshold is 0.6 steps). A
    value's bits follow from how many its row and its column keep: an isolated value costs ten or more, one
    among many three or four, so that their thresholds differ. None if nothing is kept or the step does not
    suit float32.

    Source: Sullivan and Wiegand, "Rate-distortion optimization for video compression", IEEE SPM 15(6), 1998.
    """
    exact = grid_step(step)
    if exact is None or not tensor.size:
        return None
    magnitudes: Vector = np.abs(tensor)
    near = np.flatnonzero(magnitudes >= np.float32(_CERTAIN * exact))
    a: Vector = np.divide(magnitudes[near], exact, dtype=np.float32)
    levels = np.minimum(a + np.float32(1 - _FIRST), MAX_RUNGS).astype(np.int16)
    if price > 0:
        rows = near // columns
        which = rows, near - rows * columns
        for _ in range(ROUNDS):
            if not levels.any():
                return None
            levels = _cheaper(a, levels, which, (tensor.size // columns, columns), price)
    kept = np.flatnonzero(levels)
    if not kept.size:
        return None
    positions, magnitude, level = near[kept], a[kept], levels[kept]
    steps = fitted(exact, magnitude, level)
    return Kept(tensor.size, positions, np.where(tensor[positions] < 0, -level, level)), steps


def _cheaper(
    a: Vector,
    levels: Levels,
    which: tuple[Integers, Integers],
    shape: tuple[int, int],
    price: float,
) -> Levels:
    """Levels again, at the costs of positions, signs and levels that follow from `levels`."""
    chosen = np.flatnonzero(levels)
    counts = np.bincount(levels[chosen], minlength=MAX_RUNGS + 2)
    centres = np.arange(MAX_RUNGS + 2, dtype=np.float32)
    sums = np.bincount(levels[chosen], weights=a[chosen], minlength=MAX_RUNGS + 2)
    centres[1:4] = np.where(counts[1:4] > 0, sums[1:4] / np.maximum(counts[1:4], 1), centres[1:4])
    # A level that never came costs 3 bits more than one that came once.
    level_bits = np.log2(chosen.size / np.maximum(counts, 0.125)).astype(np.float32)
    likely = [
        np.log2(np.bincount(w[chosen], minlength=n) + 0.3).astype(np.float32)
        for w, n in zip(which, shape, strict=True)
    ]
    logs = likely[0][which[0]] + likely[1][which[1]] - np.float32(np.log2(chosen.size + 1))
    np.minimum(logs, np.float32(_MOST_LIKELY), out=logs)
    place = np.log2(1 - np.exp2(logs)) - logs + 1
    nearest = np.clip(np.rint(a), 1, MAX_RUNGS).astype(np.int16)
    best, result = np.square(a), np.zeros_like(levels)
    for level in (nearest, np.maximum(nearest - 1, 1)):
        cost = np.square(a - centres[level]) + np.float32(price) * (place + level_bits[level])
        better = cost < best
        best[better] = cost[better]
        result[better] = level[better]
    return result
