"""The gradient of a maximum over windows of two, or two by two, elements side by side.

The greater of two neighbours is a difference and its sign; where the rows are decided before the columns,
ties go to the first in row-major order. Differences of neighbours in a row, and putting neighbours
together again, are strided copies, for which onnxruntime has no fast kernel: a product with a constant
matrix of ones is one. It is exact, since all terms but two are zero; but a value that is not finite reaches
the gradients of the elements around it.

With 32 samples of 32x28x28, 64x14x14 and 6x28x28, in ms: 4.24, 1.88, 0.36 by finding the maximum again and
numbering its ties; 3.63, 1.22, 0.31 by pairs; 2.50, 1.43, 0.60 by pairs and one sample at a time, which pays
where the tensors of a whole batch leave the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from laconic.training.builder import BATCH, GraphBuilder
from laconic.training.rules.indicator import is_not_negative
from laconic.training.rules.window import Window

LARGE_BYTES = 64 * 1024
"""Samples of this size and above are taken one at a time."""

_PIECE = range(8, 34, 2)
"""How many neighbours one product may take in: 32 fill the registers, fewer than 8 are no gain."""


def piece(channels: int, window: Window) -> int:
    """How many neighbours to take in one product; 0 where windows are of another kind."""
    *outer, rows, columns = (1, *window.kernel)
    if not window.tiled or columns != 2 or rows > 2 or any(k > 1 for k in outer):
        return 0
    size = channels * math.prod(window.covered)
    return max((n for n in _PIECE if size % n == 0), default=0)


def paired_maximum(g: GraphBuilder, x: str, y: str, dy: str, channels: int, window: Window) -> str:
    """The gradient of `x`, of which windows side by side cover all."""
    size, length = channels * math.prod(window.covered), piece(channels, window)
    if 4 * size < LARGE_BYTES:
        made = _winners(g, g.reshape(x, -1, length), x, y, dy, length, window)
        return g.reshape(made, -1, channels, *window.covered)
    # What a turn only reshapes is copied, so that is done before and after.
    images = (1, channels, *window.covered)
    maxima = (1, channels, *window.output)
    shapes = ((x, (size // length, length)), (x, images), (y, maxima), (dy, maxima))

    def body(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        pieces, image, maximum, gradient = items
        return [], [_winners(b, pieces, image, maximum, gradient, length, window)]

    sequences = [g.reshape(n, -1, *s, shape=(BATCH, *s)) for n, s in shapes]
    _, (made,) = g.scan(body, [], sequences)
    return g.reshape(made, -1, channels, *window.covered)


def _winners(g: GraphBuilder, pieces: str, x: str, y: str, dy: str, length: int, window: Window) -> str:
    """The gradient of `x` in pieces of this length; `pieces` are those of `x` itself."""
    half = np.arange(length // 2)
    left, right = np.zeros((2, length // 2, length))
    left[half, 2 * half] = right[half, 2 * half + 1] = 1.0
    ahead = g.op("MatMul", pieces, g.floats((left - right).T))
    dy = g.reshape(_rows(g, x, y, dy, window), -1, length // 2)
    first = g.op("Mul", dy, is_not_negative(g, ahead))
    # What the first of two does not get, the second does.
    pair = g.op("Concat", first, dy, axis=1)
    return g.op("MatMul", pair, g.floats(np.concatenate([left - right, right])))


def _rows(g: GraphBuilder, x: str, y: str, dy: str, window: Window) -> str:
    """The gradient of the maxima of each row, where windows are two rows high."""
    if window.rank < 2 or window.kernel[-2] == 1:
        return dy
    flat = [1] * (window.rank - 2)
    upper = g.op("MaxPool", x, kernel_shape=[*flat, 1, 2], strides=[*flat, 2, 2])
    taken = g.op("Mul", dy, is_not_negative(g, g.op("Sub", upper, y)))
    width = window.output[-1]
    both = g.reshape(taken, -1, width), g.reshape(g.op("Sub", dy, taken), -1, width)
    return g.op("Concat", *both, axis=1)
