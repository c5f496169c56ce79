"""Memory whose address does not change what is computed.

Some of onnxruntime's reductions (ReduceMean over an input, for one) add in an order that depends on where in
memory they begin, modulo the width of a vector: the same numbers elsewhere give other bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT_BYTES = 64
"""A cache line, and the widest vector that a processor adds at once."""


class Room:
    """Memory in which arrays can lie, one after another has been forgotten."""

    def __init__(self, size_bytes: int) -> None:
        raw = np.empty(size_bytes + 2 * ALIGNMENT_BYTES, np.uint8)
        self._raw = raw[-raw.ctypes.data % ALIGNMENT_BYTES :]

    def at(self, phase: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array whose address modulo `ALIGNMENT_BYTES` is `phase`, a multiple of the item's size."""
        size = math.prod(shape) * dtype.itemsize
        array: NDArray[Any] = self._raw[phase : phase + size].view(dtype).reshape(shape)
        return array


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy of `array` at an aligned address."""
    copy = aligned_empty_like(array)
    copy[...] = array
    return copy


def aligned_empty_like(array: NDArray[Any]) -> NDArray[Any]:
    """An array of the same shape and dtype at an aligned address, not filled."""
    return Room(array.nbytes).at(0, array.shape, array.dtype)
