"""Weighted federated averaging as a streaming sum whose result does not depend on the order of arrival.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (AISTATS 2017),
Algorithm 1. Every product of value and weight is rounded to a fixed quantum, in the manner of the pre-rounded
sums of Demmel and Nguyen, "Fast Reproducible Floating-Point Summation" (ARITH 2013), section IV, and the
quanta are summed as integers: exactly, in any order. So restarting from the store, in whatever order, gives
the same model bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laconic.compression import Piece, native
from laconic.compression.piece import Places
from laconic.errors import LimitExceeded, NonFinite
from laconic.schema import Vector

QUANTUM: Final = 2.0**-42
"""What a product is rounded to."""
MAX_PRODUCT: Final = 2.0**20
"""Largest |value| x weight that is taken: `MAX_UPDATES` of them still sum exactly."""
MAX_UPDATES: Final = 2**14

_DIRECT: Final = 2.0**6
"""`MAX_UPDATES` products up to this are below 2^62 quanta, and so fit an int64 together."""
_COARSE: Final = np.float64(2.0**46)
"""Quanta of a coarse unit, 16: what remains of a larger product without its coarse units is 8 at most."""

_ROUND: Final = np.float64(1.5 * 2.0**52)
"""x + _ROUND is x rounded to an integer, if |x| < 2^51; its bits are those of _ROUND plus the integer."""
_ROUND_BITS: Final = _ROUND.view(np.int64)

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


class Fold:
    """A running weighted mean of float32 vectors, in 8 bytes a value whatever the number of updates.

    12 bytes from the first update on that has a large product: running statistics, say.
    """

    def __init__(self, size: int) -> None:
        """`size`: number of values in an update."""
        self._fine = np.zeros(size, np.int64)
        self._coarse: NDArray[np.int32] | None = None
        self.weight = 0
        self.updates = 0

    def check(self, update: Sequence[Piece], weight: int) -> None:
        """Refuse what must not reach the sum.

        Raises `NonFinite` for NaN or infinity, `LimitExceeded` for a value x weight over `MAX_PRODUCT`
        or for more than `MAX_UPDATES` updates.
        """
        for piece in update:
            if not math.isfinite(piece.bound):
                raise NonFinite("an update", value=piece.bound, remedy="the sender's training has diverged")
            if piece.bound * weight > MAX_PRODUCT and (most := _largest(piece) * weight) > MAX_PRODUCT:
                raise LimitExceeded("largest value of an update x weight", value=most, limit=MAX_PRODUCT)
        if self.updates >= MAX_UPDATES:
            raise LimitExceeded("updates in one round", value=self.updates + 1, limit=MAX_UPDATES)

    def add(self, update: Sequence[Piece], weight: int) -> None:
        """Add an update that has passed `check`, with its number of samples.

        `update`: pieces of a vector of shape `(size,)`, no value twice; what is in none of them is zero, and
        costs nothing.
        """
        scratch = np.empty(0)
        quanta = np.float64(weight / QUANTUM)
        for piece in update:
            coarse = piece.bound * weight > _DIRECT
            if coarse and self._coarse is None:
                self._coarse = np.zeros(self._fine.size, np.int32)
            for where, values in piece.blocks():
                if isinstance(where, np.ndarray) and not coarse and native.ready_for_values(values.size):
                    from laconic.compression.native import sparse

                    sparse.add(where, values, quanta, self._fine)
                    continue
                if values.size > scratch.size:
                    scratch = np.empty(values.size)
                products = scratch[: values.size]
                # Faster than one multiplication of two types.
                np.copyto(products, values)
                np.multiply(products, quanta, out=products)
                if coarse and self._coarse is not None:
                    _add(self._coarse, where, _without_coarse(products))
                _add(self._fine, where, _rounded(products))
        self.weight += weight
        self.updates += 1

    def add_silent(self, weight: int) -> None:
        """Count a device that kept its change in its residual: zero, with its full weight.

        Its change is postponed, not lost: left out of the weight now, it would count twice when it comes.
        """
        self.weight += weight

    def withdraw_silent(self, weight: int) -> None:
        """Take back a silence: the device has sent its update after all."""
        self.weight -= weight

    def mean(self) -> Vector:
        """The weighted mean, float32, shape `(size,)`; zeros when nothing has been added.

        The exact sum of the rounded products is rounded to float64, divided, and rounded to float32.
        """
        if self.weight == 0:
            return np.zeros(self._fine.shape, np.float32)
        total = self._fine.astype(np.float64)
        if self._coarse is not None:
            # Both parts are made exact in float64, so that only their sum is rounded.
            carried = self._fine // int(_COARSE)
            total = (carried + self._coarse) * _COARSE + (self._fine - carried * int(_COARSE))
        total *= QUANTUM
        total /= self.weight
        return total.astype(np.float32)


def _largest(piece: Piece) -> float:
    return max((float(np.abs(values).max()) for _, values in piece.blocks()), default=0.0)


def _rounded(products: Doubles) -> Integers:
    """The nearest integers, in the place of `products`, which are below 2^51."""
    np.add(products, _ROUND, out=products)
    integers = products.view(np.int64)
    np.subtract(integers, _ROUND_BITS, out=integers)
    return integers


def _without_coarse(products: Doubles) -> Integers:
    """Take the coarse units out of `products`, and return how many they were."""
    units = np.rint(products / _COARSE)
    products -= units * _COARSE
    return units.astype(np.int64)


def _add(sums: NDArray[np.signedinteger], where: Places, integers: Integers) -> None:
    if not isinstance(where, np.ndarray):
        at = 0
        for stretch in where:
            out = sums[stretch]
            np.add(out, integers[at : at + out.size], out=out, casting="same_kind")
            at += out.size
    else:
        sums[where] += integers
