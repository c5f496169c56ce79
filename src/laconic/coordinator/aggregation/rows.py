"""A round's updates as the rows of a matrix that need not fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.schema import Vector

Matrix: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Updates in the order of their devices' names, and how many devices were silent.

    `read(i)` decodes update i: float32, shape `(size,)`, the same each time. A silent device is a row of
    zeros (decision 0016) that is never stored, only counted.
    """

    read: Callable[[int], Vector]
    updates: int
    size: int
    silent: int = 0

    @property
    def total(self) -> int:
        """Rows in all, the silent ones included."""
        return self.updates + self.silent

    @property
    def counts(self) -> Counts:
        """How often each distinct row stands there: the updates once, and last the row of zeros, if any."""
        return np.array([1] * self.updates + ([self.silent] if self.silent else []), np.int64)

    def blocks(self, width: int) -> Iterator[tuple[slice, Vector]]:
        """Stretches of columns with the distinct rows' values there: float32 `(len(counts), columns)`."""
        distinct = len(self.counts)
        for start in range(0, self.size, width):
            where = slice(start, min(start + width, self.size))
            block = np.zeros((distinct, where.stop - where.start), np.float32)
            for i in range(self.updates):
                block[i] = self.read(i)[where]
            yield where, block

    def combined(self, coefficients: Matrix) -> Vector:
        """The sum of the distinct rows times `coefficients`, float32; one row at a time, in their order."""
        total = np.zeros(self.size)
        for i in range(self.updates):
            if coefficients[i]:
                total += coefficients[i] * self.read(i).astype(np.float64)
        return total.astype(np.float32)

    def norms(self) -> Matrix:
        """The Euclidean norms of the updates, without the silent."""
        squares = []
        for i in range(self.updates):
            row = self.read(i).astype(np.float64)
            squares.append(float(np.dot(row, row)))
        return np.array([math.sqrt(s) for s in squares])


def held(read: Callable[[int], Vector], updates: int, size: int, *, silent: int, memory_bytes: int) -> Rows:
    """Rows that are decoded once where all take at most a quarter of `memory_bytes`, else each time anew."""
    if 4 * updates * size > memory_bytes // 4:
        return Rows(read, updates, size, silent)
    kept: Sequence[Vector] = [read(i) for i in range(updates)]
    return Rows(kept.__getitem__, updates, size, silent)
