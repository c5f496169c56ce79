"""Some of an update's values, ready to be added to a sum: as they are, or made block by block in cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Mask
from laconic.compression.factors import IntegerFactors
from laconic.schema import Vector

FOLD_BLOCK = 1 << 14
"""Values of a block: with a float64 for each they stay in the processor's cache."""

Places: TypeAlias = Sequence[slice] | NDArray[np.int64]
"""Stretches, one after the other, or positions."""

_SHORTEST_GAP = 1 << 10
"""A stretch more costs as much as so many zeros, and bounds how many stretches a hostile part can ask for."""


class Piece(Protocol):
    """Some of an update's values, each place at most once in all pieces of an update."""

    @property
    def bound(self) -> float:
        """No value has a larger magnitude; NaN or infinite if a value is."""
        ...

    def blocks(self) -> Iterator[tuple[Places, Vector]]:
        """The values with their places, at most `FOLD_BLOCK` at a time.

        They last until the next are asked for. A zero may have either sign.
        """
        ...


@dataclass(frozen=True)
class Given:
    """Values at `where`: a stretch of the flat vector, or int64 positions in it."""

    where: slice | NDArray[np.int64]
    values: Vector

    @cached_property
    def bound(self) -> float:
        """The largest magnitude; NaN if a value is."""
        if not self.values.size:
            return 0.0
        # Two passes, but nothing is written; both give NaN if there is one.
        return max(float(self.values.max()), -float(self.values.min()))

    def blocks(self) -> Iterator[tuple[Places, Vector]]:
        """Views of the values."""
        for start in range(0, self.values.size, FOLD_BLOCK):
            values = self.values[start : start + FOLD_BLOCK]
            if isinstance(self.where, slice):
                at = self.where.start + start
                yield (slice(at, at + values.size),), values
            else:
                yield self.where[start : start + FOLD_BLOCK], values


@dataclass(frozen=True)
class Product:
    """A matrix of low rank plus a few values, which are added in float32: a tensor that is never whole.

    `start`: where the matrix begins in the flat vector; `positions`, rising, count from there. `bound` must
    hold for the sums. Specification: docs/spec/update-frame.md, transform 0x05.
    """

    start: int
    factors: IntegerFactors
    positions: NDArray[np.int64]
    values: Vector
    bound: float

    def blocks(self) -> Iterator[tuple[Places, Vector]]:
        """As many rows as a block holds, a long row in parts; rows that are all zero are left out."""
        columns = len(self.factors.right)
        stretches = _Stretches.of(self._live(), max(_SHORTEST_GAP // columns, 1))
        left, right = self.factors.operands()
        left = left[stretches.rows()]
        scale = np.float32(self.factors.scale)
        high, width = max(FOLD_BLOCK // columns, 1), min(columns, FOLD_BLOCK)
        corners = [(r, c) for r in range(0, len(left), high) for c in range(0, columns, width)]
        # From here on places are counted without the rows that are left out.
        among, firsts = self.positions, [0] * (len(corners) + 1)
        if among.size:
            among = among - stretches.left_out(among // columns) * columns
            firsts = [*np.searchsorted(among, [r * columns + c for r, c in corners]).tolist(), among.size]
        scratch = np.empty(high * width, np.float32)
        for (r, c), first, last in zip(corners, firsts[:-1], firsts[1:], strict=True):
            rows, wide = left[r : r + high], right[:, c : c + width]
            values = scratch[: len(rows) * wide.shape[1]]
            block = values.reshape(len(rows), -1)
            np.matmul(rows, wide, out=block)
            np.multiply(block, scale, out=block)
            at = r * columns + c
            if last > first:
                values[among[first:last] - at] += self.values[first:last]
            yield stretches.places(at, at + values.size, columns, self.start), values

    def _live(self) -> Mask:
        """Which rows are not all zero."""
        live: Mask = np.asarray(self.factors.left.any(axis=1))
        if self.positions.size:
            live[self.positions // len(self.factors.right)] = True
        return live


@dataclass(frozen=True, slots=True)
class _Stretches:
    """Rows that are taken, as stretches; `ends`: how many rows are taken up to the end of each."""

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, live: Mask, shortest_gap: int) -> _Stretches:
        """Stretches of live rows, and of dead ones in gaps that are shorter than `shortest_gap`."""
        fenced = np.zeros(live.size + 2, np.bool_)
        fenced[1:-1] = live
        edges = (fenced[1:] != fenced[:-1]).nonzero()[0]
        if edges.size > 2:
            # Of the edges between the first and the last, those of a short gap go.
            inner = edges[1:-1].reshape(-1, 2)
            wide = inner[inner[:, 1] - inner[:, 0] >= shortest_gap].ravel()
            edges = np.concatenate([edges[:1], wide, edges[-1:]])
        starts, stops = edges[::2], edges[1::2]
        return cls(starts, stops, (stops - starts).cumsum())

    def rows(self) -> NDArray[np.int64]:
        """All rows that are taken, in their order."""
        count = int(self.ends[-1]) if self.ends.size else 0
        return np.arange(count) + np.repeat(self.stops - self.ends, self.stops - self.starts)

    def left_out(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many rows before each of `rows`, which are taken, are not."""
        return (self.stops - self.ends)[np.searchsorted(self.stops, rows, side="right")]

    def places(self, start: int, stop: int, columns: int, ahead: int) -> list[slice]:
        """Where the values `start` to `stop` of the rows that are taken lie in a vector.

        `ahead`: where the matrix begins there.
        """
        found = []
        i = int(self.ends.searchsorted(start // columns, side="right"))
        while start < stop:
            end = min(int(self.ends[i]) * columns, stop)
            offset = ahead + int(self.stops[i] - self.ends[i]) * columns
            found.append(slice(offset + start, offset + end))
            start = end
            i += 1
        return found


def whole(update: Vector) -> tuple[Given]:
    """A dense vector as its only piece."""
    return (Given(slice(0, update.size), update),)
