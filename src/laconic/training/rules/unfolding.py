"""What each window sees, by index: pixels with all their channels, gathered in one piece each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from laconic.training.builder import GraphBuilder
from laconic.training.rules.window import Window


def flat_images(g: GraphBuilder, x: str, channels: int, space: Sequence[int]) -> str:
    """`x` as [batch, channel, pixel]."""
    size = math.prod(space)
    known = g.types.get(x)
    batch = known.shape[0] if known is not None and known.shape else "batch"
    return g.reshape(x, 0, channels, size, shape=(batch, channels, size))


def pixels(g: GraphBuilder, x: str, channels: int) -> str:
    """One sample [channel, pixel] as [pixel, channel], with a pixel of zeros after the last."""
    return g.op("Concat", g.op("Transpose", x, perm=[1, 0]), g.floats(np.zeros((1, channels))), axis=0)


def places(g: GraphBuilder, window: Window, *, taps_first: bool = False, backwards: bool = False) -> str:
    """For every window and tap the index of the pixel it sees, or of the one after the last for padding.

    A sum over the axes, which onnxruntime works out when it loads the graph: the file holds only the terms.
    With `backwards` the last tap comes first.
    """
    rank, size = window.rank, math.prod(window.input)
    total = ""
    for axis in range(rank):
        step = math.prod(window.input[axis + 1 :])
        starts = np.arange(window.output[axis], dtype=np.int64) * window.strides[axis] - window.before[axis]
        taps = np.arange(window.kernel[axis], dtype=np.int64)[:: -1 if backwards else 1]
        place = starts[:, None] + taps * window.dilations[axis]
        inside = (place >= 0) & (place < window.input[axis])
        term = np.where(inside, place * step, size)
        term = term.T if taps_first else term
        dims = [1] * (2 * rank)
        dims[axis], dims[rank + axis] = term.shape
        constant = g.constant(np.ascontiguousarray(term).reshape(dims))
        total = g.op("Add", total, constant) if total else constant
    windows, taps_all = math.prod(window.output), window.taps
    flat = (taps_all, windows) if taps_first else (windows, taps_all)
    return g.reshape(g.op("Min", total, g.constant(np.array(size, np.int64))), *flat)
