"""Gradient rules of pooling, for any number of spatial axes.

Asking MaxPool for its Indices output makes it some twenty times slower in onnxruntime, so the maximum is
found again. Among equal values the first in row-major order wins, as in PyTorch; GlobalMaxPool shares the
gradient out among them, as `torch.amax` does (`torch.nn.AdaptiveMaxPool2d` gives all to the first).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.indicator import is_equal, is_not_negative
from laconic.training.rules.paired_maximum import paired_maximum, piece
from laconic.training.rules.window import Window, window_of

LOWEST = float(np.finfo(np.float32).min)


def max_pool(a: Application, dys: Gradients) -> Gradients:
    """dy goes to the element that was the maximum of its window."""
    g, dy = a.graph, only(dys)
    window = _window(a)
    if window.tiled:
        x = _covered(g, a.inputs[0], window)
        channels = a.output_shape[1]
        if isinstance(channels, int) and piece(channels, window):
            dx = paired_maximum(g, x, a.output, dy, channels, window)
        else:
            dx = _tiled(g, x, a.output, dy, window)
        return (_uncovered(g, dx, window),)
    return (_overlapping(g, a.inputs[0], a.output, dy, window),)


def average_pool(a: Application, dys: Gradients) -> Gradients:
    """dy, divided by the number of elements that were averaged, goes to each of them."""
    g, window = a.graph, _window(a)
    share = _over_counts(g, only(dys), window.counts(padding=bool(a.attribute("count_include_pad", 0))))
    if window.tiled:
        return (_uncovered(g, _enlarged(g, share, window), window),)
    return (_spread(g, share, window, a.inputs[0]),)


def lp_pool(a: Application, dys: Gradients) -> Gradients:
    """dx = dy sign(x) |x/y|^(p-1); 0 where the whole window is 0, as in PyTorch."""
    g, x, window = a.graph, a.inputs[0], _window(a)
    p = int(a.attribute("p", 2))
    share = g.op("Mul", only(dys), _inverse_power(g, a.output, p - 1))
    return (g.op("Mul", _spread(g, share, window, x), _signed_power(g, x, p - 1)),)


def global_average_pool(a: Application, dys: Gradients) -> Gradients:
    """dy, divided by the number of elements, goes to each of them."""
    g, x = a.graph, a.inputs[0]
    share = g.op("Div", only(dys), g.count(x, _spatial(g, x)))
    return (g.op("Expand", share, g.shape_of(x)),)


def global_max_pool(a: Application, dys: Gradients) -> Gradients:
    """dy is shared out evenly among the elements equal to the maximum, as `torch.amax` does."""
    g, x = a.graph, a.inputs[0]
    hit = is_equal(g, x, a.output)
    number = g.op("ReduceSum", hit, g.ints(*_spatial(g, x)), keepdims=1)
    return (g.op("Mul", hit, g.op("Div", only(dys), number)),)


def global_lp_pool(a: Application, dys: Gradients) -> Gradients:
    """dx = dy sign(x) |x/y|^(p-1); 0 where the whole channel is 0."""
    g, x = a.graph, a.inputs[0]
    p = int(a.attribute("p", 2))
    share = g.op("Mul", only(dys), _inverse_power(g, a.output, p - 1))
    return (g.op("Mul", _signed_power(g, x, p - 1), share),)


def _window(a: Application) -> Window:
    window = window_of(a, tuple(a.attribute("kernel_shape")))
    same = a.attribute("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    # onnxruntime pads as if nothing were dilated, and crops or fails where strides pass over elements.
    if same and (set(window.dilations) != {1} or min(window.after) < 0):
        raise ModelError(
            f"automatic padding of {a.node.op_type} {a.output!r}",
            value=f"strides {window.strides}, dilations {window.dilations}",
            remedy="export the model with explicit pads",
        )
    return window


def _tiled(g: GraphBuilder, x: str, y: str, dy: str, window: Window) -> str:
    """Windows side by side: enlarge y, see where x reaches it, and let the earliest of each window win."""
    hit = is_not_negative(g, g.op("Sub", x, _enlarged(g, y, window)))
    order = np.arange(window.taps, 0, -1, dtype=np.float32).reshape(window.kernel)
    priority = g.op("Mul", hit, _repeated(g, order, window))
    best = g.op("MaxPool", priority, kernel_shape=window.kernel, strides=window.strides)
    winner = is_not_negative(g, g.op("Sub", priority, _enlarged(g, best, window)))
    return g.op("Mul", winner, _enlarged(g, dy, window))


def _covered(g: GraphBuilder, x: str, window: Window) -> str:
    """`x` without what no window sees, for windows side by side."""
    if window.covered == window.input:
        return x
    axes = range(2, 2 + window.rank)
    return g.op("Slice", x, g.ints(*[0] * window.rank), g.ints(*window.covered), g.ints(*axes))


def _uncovered(g: GraphBuilder, x: str, window: Window) -> str:
    """The reverse of `_covered`: zeros where no window sees anything."""
    unseen = [i - s for i, s in zip(window.input, window.covered, strict=True)]
    return g.op("Pad", x, g.ints(*[0] * (4 + window.rank), *unseen)) if any(unseen) else x


def _repeated(g: GraphBuilder, order: NDArray[np.float32], window: Window) -> str:
    """`order` side by side for all windows; onnxruntime does it once, when it loads the graph."""
    return g.op("Tile", g.floats(order), g.ints(*window.output))


def _enlarged(g: GraphBuilder, x: str, window: Window) -> str:
    """Repeat every element over its window."""
    if window.taps == 1:
        return x
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


def _spread(g: GraphBuilder, share: str, window: Window, like: str) -> str:
    """Give each element of a window the window's value, and sum: a transposed convolution with ones."""
    images = g.reshape(share, -1, 1, *window.output)
    ones = g.floats(np.ones((1, 1, *window.kernel)))
    return g.reshape_like(g.op("ConvTranspose", images, ones, **window.transposed()), like)


def _over_counts(g: GraphBuilder, dy: str, counts: Sequence[NDArray[np.int64]]) -> str:
    """`dy` divided by the number of elements of each window, the product of those along the axes.

    A window of nothing but padding has no element, and nobody to give its share to.
    """
    counts = [np.maximum(c, 1) for c in counts]
    if all(len(set(c.tolist())) == 1 for c in counts):
        return g.op("Mul", dy, g.scalar(1 / math.prod(int(c[0]) for c in counts)))
    for axis, count in enumerate(counts):
        shape = [1] * len(counts)
        shape[axis] = -1
        dy = g.op("Mul", dy, g.floats(1 / count.reshape(shape)))
    return dy


def _inverse_power(g: GraphBuilder, y: str, power: int) -> str:
    """1 / y^power for norms y, and 0 where y is 0."""
    if power == 0:
        return g.floats(1.0)
    positive = g.op("Where", g.op("Greater", y, g.scalar(0.0)), y, g.scalar(math.inf))
    return g.op("Pow", positive, g.scalar(-float(power)))


def _signed_power(g: GraphBuilder, x: str, power: int) -> str:
    """sign(x) |x|^power."""
    if power == 0:
        return g.op("Sign", x)
    if power == 1:
        return x
    return g.op("Mul", x, g.op("Pow", g.op("Abs", x), g.scalar(float(power - 1))))


def _spatial(g: GraphBuilder, x: str) -> list[int]:
    return list(range(2, len(g.shape(x))))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "AveragePool": average_pool,
        "GlobalAveragePool": global_average_pool,
        "GlobalLpPool": global_lp_pool,
        "GlobalMaxPool": global_max_pool,
        "LpPool": lp_pool,
        "MaxPool": max_pool,
    }
)
