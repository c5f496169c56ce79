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
    """Labelled examples, samples on axis 0 of both."""

    x: Array
    y: Array

    def at(self, where: Sequence[int] | Array) -> Part:
        """Some of them."""
        return Part(self.x[where], self.y[where])


@dataclass(frozen=True)
class Labelled:
    """Examples in the order of their files, which is that of time; samples on axis 0 of all arrays.

    `group`: a number for each example, that of the person or engine it is of, or None. `x` may be stored in
    few bytes: what is gathered is float32, divided by `divisor`, if there is one.
    """

    x: Array
    y: Array
    group: NDArray[np.int64] | None = None
    divisor: float | None = None

    def gathered(self, where: NDArray[np.int64]) -> Part:
        """Those examples, in that order, in arrays of their own."""
        if self.divisor is None:
            return Part(self.x[where], self.y[where])
        flat = self.x.reshape(len(self.x), -1)
        x = np.empty((len(where), flat.shape[1]), np.float32)
        # A few at a time: what has been gathered is still in the processor's cache when it is converted.
        rows = max(1, _BLOCK_BYTES // max(1, flat[:1].nbytes))
        for start in range(0, len(where), rows):
            block = where[start : start + rows]
            np.divide(flat[block], np.float32(self.divisor), out=x[start : start + rows], dtype=np.float32)
        return Part(x.reshape(len(where), *self.x.shape[1:]), self.y[where])

    def whole(self) -> Part:
        """All of them."""
        return Part(self.x, self.y) if self.divisor is None else self.gathered(np.arange(len(self.y)))


@dataclass(frozen=True)
class Dataset:
    """What is learnt from, and what the data set itself sets apart to be scored on, if it does."""

    train: Labelled
    held_out: Part | None = None
