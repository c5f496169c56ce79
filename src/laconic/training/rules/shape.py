"""Gradient rules of operators that give elements another shape or order, or repeat them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from onnx import helper

from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.axes import size, vector


def identity(a: Application, dys: Gradients) -> Gradients:
    """dx = dy."""
    return (only(dys),)


def reshape(a: Application, dys: Gradients) -> Gradients:
    """dx = dy in the shape of x; the target shape or axes, if they are an input, have no gradient."""
    return (a.graph.reshape_like(only(dys), a.inputs[0]), *(None for _ in a.inputs[1:]))


def expand(a: Application, dys: Gradients) -> Gradients:
    """dx is dy summed over the axes along which x was repeated.

    Where sizes known only at run time may or may not be equal, the axes are found at run time.
    """
    g, dy = a.graph, only(dys)
    x, wide = a.inputs[0], a.output_shape
    narrow = g.shape(x)
    missing = len(wide) - len(narrow)
    if all(n in (1, w) or isinstance(n, int) for n, w in zip(narrow, wide[missing:], strict=True)):
        # A known size other than 1 cannot be repeated, whatever the output's is called.
        same = tuple(w if n == 1 else n for n, w in zip(narrow, wide[missing:], strict=True))
        return g.sum_to(dy, (*wide[:missing], *same), x), None
    own = g.op("Shape", x)
    aligned = own if missing == 0 else vector(g, *[1] * missing, own)
    differs = g.op("Not", g.op("Equal", g.op("Shape", dy), aligned))
    axes = g.op("Squeeze", g.op("NonZero", differs), g.ints(0))
    summed = g.op("ReduceSum", dy, axes, keepdims=1, noop_with_empty_axes=1)
    return (summed if missing == 0 else g.op("Reshape", summed, own)), None


def transpose(a: Application, dys: Gradients) -> Gradients:
    """dx is dy with its axes in their old order.

    The transposition of a bare matrix product is the product of the exchanged factors: a weight that the
    model transposes before it uses it keeps a gradient that an optimizer can merge with its own work.
    """
    g, dy = a.graph, only(dys)
    perm = list(a.attribute("perm", range(len(a.output_shape))[::-1]))
    made = g.producer(dy)
    if perm == [1, 0] and made is not None and made.op_type == "Gemm" and len(made.input) == 2:
        settings = {s.name: helper.get_attribute_value(s) for s in made.attribute}
        turned = {"transA": 1 - settings.get("transB", 0), "transB": 1 - settings.get("transA", 0)}
        left, right = made.input
        return (g.op("Gemm", right, left, shape=g.shape(a.inputs[0]), **settings | turned),)
    return (g.op("Transpose", dy, perm=[int(p) for p in np.argsort(perm)]),)


def tile(a: Application, dys: Gradients) -> Gradients:
    """dx sums dy over the repetitions, which get axes of their own for that."""
    g, dy = a.graph, only(dys)
    x, repeats = a.inputs
    shape, known = g.shape(x), g.value(repeats)
    parts: list[int | str] = []
    summed: list[int] = []
    for axis in range(len(shape)):
        times = None if known is None else int(known[axis])
        if times != 1:
            summed.append(len(parts))
            parts.append(g.op("Slice", repeats, g.ints(axis), g.ints(axis + 1)) if times is None else times)
        parts.append(-2)
    if not summed:
        return dy, None
    unknown = sum(not isinstance(d, int) for d in shape)
    sizes = iter(
        [-1 if unknown == 1 and not isinstance(d, int) else size(g, x, i) for i, d in enumerate(shape)]
    )
    apart = g.op("Reshape", dy, vector(g, *(next(sizes) if p == -2 else p for p in parts)))
    return g.op("ReduceSum", apart, g.ints(*summed), keepdims=0), None


def shape_only(a: Application, dys: Gradients) -> Gradients:
    """Nothing but the shape of x enters the result: there is no gradient."""
    return (None,)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Expand": expand,
        "EyeLike": shape_only,
        "Flatten": reshape,
        "Identity": identity,
        "RandomNormalLike": shape_only,
        "RandomUniformLike": shape_only,
        "Reshape": reshape,
        "Squeeze": reshape,
        "Tile": tile,
        "Transpose": transpose,
        "Unsqueeze": reshape,
    }
)
