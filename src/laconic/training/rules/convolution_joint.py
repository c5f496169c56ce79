"""Both gradients of a convolution in one loop over the samples: what they see of dY is gathered once.

dX is dY convolved with the weight turned round, and dW correlates dY with X: each can be a product with the
same unfolded dY, which is still in the cache for the second.

Step times as multiples of those of the two gradients apart, onnxruntime 1.32, one thread, AVX-512, medians
of CPU time at batch 1, 8 and 32; an asterisk marks what `gains` takes:

    layer (channels, kernel, pixels)
    16 -> 16, 3x3, 32x32               1.15  1.20  1.21
    16 -> 32, 3x3, 16x16               1.13  1.01  1.13
    32 -> 16, 3x3, 16x16               0.76  0.74  0.77*
    32 -> 32, 3x3, 16x16               0.88  0.91  0.95*
    32 -> 32, 5x5, 14x14               0.96  0.91  0.94*
    48 -> 48, 3x3, 14x14               0.89  0.87  1.00*
    64 -> 32, 3x3, 16x16               0.79  0.78  0.82*
    64 -> 64, 3x3, 28x28               0.98  0.97  0.97*
    64 -> 64, 3x3, 8x8                 0.94  0.88  0.88*
    64 -> 128, 3x3, 8x8                0.98  0.96  0.98
    128 -> 64, 3x3, 8x8                0.97  0.90  0.91*
    128 -> 128, 3x3, 8x8               1.00  0.98  0.99*
    128 -> 128, 3x3, 4x4               1.09  1.01  1.01
    256 -> 256, 3x3, 4x4               1.30  1.08  1.06
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from laconic.training.builder import GraphBuilder
from laconic.training.rules.convolution_forward import turned_rows, turns
from laconic.training.rules.convolution_weight import Correlation, choice
from laconic.training.rules.unfolding import flat_images, pixels

FEWEST_PIXELS = 64
"""On smaller images the gradient of the weight, which leaves the loop in another order, is what is large."""


def gains(c: Correlation) -> bool:
    """Whether one loop is faster than two, by the shapes that are known before the batch size is."""
    if c.window.rank != 2 or c.group != 1 or not turns(c.window):
        return False
    fits = c.channels_out <= c.channels_in and math.prod(c.window.input) >= FEWEST_PIXELS
    return fits and choice(c) == "gathered_each"


def joint_gradients(g: GraphBuilder, x: str, w: str, dy: str, c: Correlation) -> tuple[str, str]:
    """dX and dW of a convolution with stride 1."""
    rows, seen = turned_rows(g, w, c.window)
    places, width = math.prod(c.window.input), c.window.taps * c.channels_out

    def body(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        columns = b.op("Gather", pixels(b, items[1], c.channels_out), seen, axis=0)
        columns = b.reshape(columns, places, width)
        return [b.op("Gemm", items[0], columns, states[0])], [b.op("Gemm", rows, columns, transB=1)]

    sequences = [
        flat_images(g, x, c.channels_in, c.window.input),
        flat_images(g, dy, c.channels_out, c.window.output),
    ]
    (total,), (made,) = g.scan(body, [g.floats(np.zeros((c.channels_in, width)))], sequences)
    apart = g.reshape(total, c.channels_in, *c.window.kernel, c.channels_out)
    dw = g.op("Transpose", apart, perm=[3, 0, 1, 2], shape=c.weight)
    return g.reshape(made, -1, c.channels_in, *c.window.input), dw
