"""Gradient rules of pooling.

Asking MaxPool for its Indices output makes it some twenty times slower in onnxruntime, so the maximum is
found again. Among equal values the first in row-major order wins, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.indicator import is_not_negative
from laconic.training.rules.window import Window, window_of

LOWEST = float(np.finfo(np.float32).min)


def max_pool(a: Application, dys: Gradients) -> Gradients:
    """dy goes to the element that was the maximum of its window."""
    g, dy = a.graph, only(dys)
    window = window_of(a, tuple(a.attribute("kernel_shape")))
    tiled = window.kernel == window.strides and not any(window.before) and max(window.after) <= 0
    if tiled and set(window.dilations) == {1}:
        return (_tiled(g, a.inputs[0], a.output, dy, window),)
    return (_overlapping(g, a.inputs[0], a.output, dy, window),)


def _tiled(g: GraphBuilder, x: str, y: str, dy: str, window: Window) -> str:
    """Windows side by side: enlarge y, see where x reaches it, and let the earliest of each window win."""
    seen = tuple(o * k for o, k in zip(window.output, window.kernel, strict=True))
    axes = g.ints(*range(2, 2 + window.rank))
    covered = x
    if seen != window.input:
        covered = g.op("Slice", x, g.ints(*([0] * window.rank)), g.ints(*seen), axes)
    hit = is_not_negative(g, g.op("Sub", covered, _enlarged(g, y, window)))
    order = np.arange(window.taps, 0, -1, dtype=np.float32).reshape(window.kernel)
    priority = g.op("Mul", hit, _repeated(g, order, window))
    best = g.op("MaxPool", priority, kernel_shape=window.kernel, strides=window.strides)
    winner = is_not_negative(g, g.op("Sub", priority, _enlarged(g, best, window)))
    dx = g.op("Mul", winner, _enlarged(g, dy, window))
    if seen == window.input:
        return dx
    unseen = [i - s for i, s in zip(window.input, seen, strict=True)]
    return g.op("Pad", dx, g.ints(*([0] * (4 + window.rank)), *unseen))


def _repeated(g: GraphBuilder, order: NDArray[np.float32], window: Window) -> str:
    """`order` side by side for all windows; onnxruntime does it once, when it loads the graph."""
    return g.op("Tile", g.floats(order), g.ints(*window.output))


def _enlarged(g: GraphBuilder, x: str, window: Window) -> str:
    """Repeat every element over its window."""
    scales = g.constant(np.array([1, 1, *window.kernel], np.float32))
    return g.op(
        "Resize",
        x,
        "",
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _overlapping(g: GraphBuilder, x: str, y: str, dy: str, window: Window) -> str:
    """Any windows: tap after tap takes the gradient that earlier taps have left, then all are folded back.

    Folding (col2im) is a transposed convolution whose kernel for tap t is 1 at t and 0 elsewhere.
    """
    taps = list(window.tap_slices(g, window.padded(g, x, LOWEST, axis=2), axis=2))
    left, shares = dy, []
    for tap in taps[:-1]:
        share = g.op("Mul", left, is_not_negative(g, g.op("Sub", tap, y)))
        left = g.op("Sub", left, share)
        shares.append(share)
    shares.append(left)
    stacked = g.op("Concat", *(g.op("Unsqueeze", s, g.ints(2)) for s in shares), axis=2)
    images = g.reshape(stacked, -1, window.taps, *window.output)
    kernels = g.floats(np.eye(window.taps).reshape(window.taps, 1, *window.kernel))
    return g.reshape_like(g.op("ConvTranspose", images, kernels, **window.transposed()), x)


RULES: Mapping[str, Rule] = MappingProxyType({"MaxPool": max_pool})
