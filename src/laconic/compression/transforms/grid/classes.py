"""Which rows and columns of a grid are alike: few classes by how many values each one keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Codes
from laconic.compression.transforms.grid.gaps import Integers

MOST = 8
"""Classes of an axis at most."""

_GROUPS = 64
_PRICE = 20.0
"""Bits that one more class costs beside its name: its blocks' counts. 10 to 30 were best on real updates."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Rows or columns and their classes.

    `classes`: uint8, shape `(length,)`, below `count`; None for one class.
    """

    length: int
    count: int
    classes: Codes | None

    def members(self) -> list[Integers] | None:
        """The indices in each class, rising; None for one class, which has all."""
        if self.classes is None:
            return None
        return [np.flatnonzero(self.classes == c) for c in range(self.count)]

    def sizes(self) -> Integers:
        """How many there are in each class."""
        if self.classes is None:
            return np.array([self.length])
        return np.bincount(self.classes, minlength=self.count)

    def ranks(self) -> Integers:
        """Where each row or column stands in its class: int64, shape `(length,)`."""
        members = self.members()
        if members is None:
            return np.arange(self.length)
        ranks = np.empty(self.length, np.int64)
        for indices in members:
            ranks[indices] = np.arange(indices.size)
        return ranks


def whole(length: int) -> Axis:
    """One class."""
    return Axis(length, 1, None)


def most_members(values: int) -> int:
    """How long an axis with classes may be: bounds a decoder's memory."""
    return max(1 << 16, values // 8)


def classed(counts: Integers, width: int) -> Axis:
    """The classes that make the fewest bits: the order-0 entropy within each class plus that of the classes.

    `counts`: kept values in each row (or column), shape `(length,)`; `width`: how many each of them could
    keep. The best cut of the sorted counts into intervals is found by dynamic programming, over 64 groups
    at most.
    """
    distinct, group = np.unique(counts, return_inverse=True)
    if distinct.size > _GROUPS:
        edges = np.unique(np.round(np.geomspace(1, distinct.size, _GROUPS)).astype(np.int64) - 1)
        merged = np.searchsorted(edges, np.arange(distinct.size), side="right") - 1
        group = merged[group]
    numbers = np.append(0, np.cumsum(np.bincount(group)))
    sums = np.append(0, np.cumsum(np.bincount(group, weights=counts)))
    n = numbers[None, :] - numbers[:, None]
    kept = sums[None, :] - sums[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = kept / (n * width)
        bits = n * width * binary_entropy(share) - n * np.log2(n / counts.size) + _PRICE
    bits[n <= 0] = np.inf
    best = bits[0]
    cuts: list[NDArray[np.intp]] = []
    totals = [float(best[-1])]
    for _ in range(1, MOST):
        through = best[:, None] + bits
        cuts.append(through.argmin(axis=0))
        best = through.min(axis=0)
        totals.append(float(best[-1]))
    count = int(np.argmin(totals)) + 1
    if count == 1:
        return whole(counts.size)
    bounds = [numbers.size - 1]
    for cut in reversed(cuts[: count - 1]):
        bounds.append(int(cut[bounds[-1]]))
    of_group = np.searchsorted(np.array(bounds[::-1]), np.arange(numbers.size - 1), side="right")
    return Axis(counts.size, count, of_group.astype(np.uint8)[group])


def binary_entropy(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits of one yes or no, `share` of them yes (Shannon, 1948); 0 outside of 0 to 1."""
    p = np.where((share > 0) & (share < 1), share, 0.5)
    return np.where((share > 0) & (share < 1), -p * np.log2(p) - (1 - p) * np.log2(1 - p), 0.0)
