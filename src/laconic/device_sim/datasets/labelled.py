"""Labelled examples, and those of a data set as its files have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
_BLOCK_BYTES: Final = 1 << 18


@dataclass(frozen=True)
class Part:
    """Labelled examples, samples on axis 0 of both.

    `stored` may have few bytes: what is learnt from is float32, divided by `divisor`, if there is one.
    """

    stored: Array
    y: Array
    divisor: float | None = None

    @property
    def x(self) -> Array:
        """What is learnt from: with a divisor an array of its own, made whenever it is asked for."""
        return self.stored if self.divisor is None else _divided(self.stored, self.divisor)

    def at(self, where: Sequence[int] | slice | Array) -> Part:
        """Some of them."""
        return Part(self.stored[where], self.y[where], self.divisor)

    def plain(self) -> Part:
        """With what is learnt from as it is stored."""
        return Part(self.x, self.y)


@dataclass(frozen=True)
class Labelled:
    """Examples in the order of their files, which is that of time; samples on axis 0 of all arrays.

    `group`: a number for each example, that of the person or engine it is of, or None. `x` and `divisor` are
    as a part has them.
    """

    x: Array
    y: Array
    group: NDArray[np.int64] | None = None
    divisor: float | None = None

    def gathered(self, where: NDArray[np.int64]) -> Part:
        """Those examples, in that order, in arrays of their own."""
        return Part(self.x[where], self.y[where], self.divisor)

    def whole(self) -> Part:
        """All of them, plain."""
        return Part(self.x, self.y, self.divisor).plain()


@dataclass(frozen=True)
class Dataset:
    """What is learnt from, and what the data set itself sets apart to be scored on, if it does."""

    train: Labelled
    held_out: Part | None = None


def _divided(stored: Array, divisor: float) -> Array:
    x = np.empty(stored.shape, np.float32)
    # A few at a time: what has been read is still in the processor's cache when it is written.
    rows = max(1, _BLOCK_BYTES // max(1, stored[:1].nbytes))
    for start in range(0, len(stored), rows):
        block = slice(start, start + rows)
        np.divide(stored[block], np.float32(divisor), out=x[block], dtype=np.float32)
    return x
