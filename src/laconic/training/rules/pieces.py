"""Gradient rules of operators that put tensors together or take them apart along an axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from onnx import TensorProto

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.axes import (
    difference,
    padded,
    product,
    refuse,
    reversed_along,
    size,
    vector,
    zeros_like,
)

WIDEST_MATRIX = 256
"""The longest last axis along which strided elements are spread by a matrix product. Copying one element at a
time takes five times as long at 32; a product's work grows with the length, so somewhere it must lose."""


def concat(a: Application, dys: Gradients) -> Gradients:
    """Each input's gradient is its piece of dy."""
    g, dy = a.graph, only(dys)
    axis = a.attribute("axis") % len(a.output_shape)
    sizes = [size(g, x, axis) for x in a.inputs]
    if len(a.inputs) == 1:
        return (dy,)
    if all(a.wanted) or any(isinstance(s, str) for s in sizes):
        return tuple(g.ops("Split", dy, vector(g, *sizes), outputs=len(sizes), axis=axis))
    ends = np.cumsum([int(s) for s in sizes])
    return tuple(
        g.op("Slice", dy, g.ints(int(end) - int(s)), g.ints(int(end)), g.ints(axis)) if wanted else None
        for s, end, wanted in zip(sizes, ends, a.wanted, strict=True)
    )


def split(a: Application, dys: Gradients) -> Gradients:
    """dx puts the outputs' gradients together; zeros stand for outputs that nobody used."""
    g, x = a.graph, a.inputs[0]
    axis = a.attribute("axis", 0) % len(g.shape(x))
    outputs = list(a.node.output)
    used = [i for i, dy in enumerate(dys) if dy is not None]
    first, last = used[0], used[-1]
    # Outputs that nobody used at either end cost no tensor of zeros if their sizes are known.
    ends = [i for i in range(len(outputs)) if not first <= i <= last]
    sizes = {i: g.shape(outputs[i])[axis] for i in ends if outputs[i]}
    trimmed = len(sizes) == len(ends) and all(isinstance(s, int) for s in sizes.values())
    inner = range(first, last + 1) if trimmed else range(len(outputs))
    pieces = [dys[i] or zeros_like(g, outputs[i]) for i in inner]
    dx = pieces[0] if len(pieces) == 1 else g.op("Concat", *pieces, axis=axis)
    if trimmed:
        before = sum(int(s) for i, s in sizes.items() if i < first)
        after = sum(int(s) for i, s in sizes.items() if i > last)
        dx = padded(g, dx, {axis: (before, after)})
    return (dx, *(None for _ in a.inputs[1:]))


@dataclass(frozen=True, slots=True)
class Cut:
    """What a Slice takes of one axis, lowest position first: every `step`-th of `count` elements.

    `before` elements lie in front of the first; `length` is the axis's size. `reverse` tells that the
    output has them in the opposite order.
    """

    axis: int
    before: int | str
    step: int
    count: int | str
    length: int | str
    reverse: bool


def slice_(a: Application, dys: Gradients) -> Gradients:
    """dx holds dy at the positions that were taken, and zeros between and around them."""
    g, dx = a.graph, only(dys)
    cuts = [c for c in _cuts(a) if c.reverse or c.before != 0 or c.count != c.length]
    none = (None for _ in a.inputs[1:])
    if any(c.count == 0 for c in cuts):
        return zeros_like(g, a.inputs[0]), *none
    dx = reversed_along(g, dx, *(c.axis for c in cuts if c.reverse))
    around: dict[int, tuple[int | str, int | str]] = {}
    for cut in cuts:
        if cut.step == 1:
            after = difference(g, difference(g, cut.length, cut.before), cut.count)
            around[cut.axis] = (cut.before, after)
        else:
            dx = _spread(a, dx, cut)
    dx = padded(g, dx, around)
    return dx, *none


def _spread(a: Application, dy: str, cut: Cut) -> str:
    """Elements of `dy` along an axis at every `step`-th position of the axis's old length."""
    g, rank = a.graph, len(a.output_shape)
    before, count, length = cut.before, cut.count, cut.length
    match cut.axis - rank, before, count, length:
        case -1, int(before), int(count), int(length) if length <= WIDEST_MATRIX:
            places = np.zeros((count, length))
            places[np.arange(count), before + cut.step * np.arange(count)] = 1
            return g.op("MatMul", dy, g.floats(places))
    apart = g.op("Unsqueeze", dy, g.ints(cut.axis + 1))
    apart = padded(g, apart, {cut.axis + 1: (0, cut.step - 1)})
    # Earlier cuts have grown their axes already: sizes behind this one are asked of the tensor itself.
    behind: list[int | str] = []
    if cut.axis < rank - 1:
        behind = [g.op("Shape", dy, start=cut.axis + 1)]
    wide = g.op("Reshape", apart, vector(g, *[0] * cut.axis, -1, *behind))
    after = difference(g, difference(g, length, before), product(g, count, cut.step))
    if isinstance(after, int):
        return padded(g, wide, {cut.axis: (before, after)})
    # The last gap may be wider than what is left of the axis: make it longer still, then cut.
    after = g.op("Add", after, g.ints(cut.step))
    longer = padded(g, wide, {cut.axis: (before, after)})
    return g.op("Slice", longer, g.ints(0), vector(g, length), g.ints(cut.axis))


def _cuts(a: Application) -> list[Cut]:
    g = a.graph
    x, starts, ends = a.inputs[:3]
    rank = len(g.shape(x))
    axes = _numbers(a, 3)
    steps = _numbers(a, 4)
    known = g.value(starts), g.value(ends)
    if axes is None:
        axes = list(range(len(next((k for k in known if k is not None), g.shape(starts)))))
    steps = [1] * len(axes) if steps is None else steps
    cuts = []
    for i, (axis, step) in enumerate(zip((n % rank for n in axes), steps, strict=True)):
        start, end = (None if k is None else int(k[i]) for k in known)
        length, count = size(g, x, axis), size(g, a.output, axis)
        before: int | str | None = None
        if start is not None and end is not None and isinstance(length, int):
            taken = range(*slice(start, end, step).indices(length))
            before, count = (min(taken[0], taken[-1]) if taken else 0), len(taken)
        elif start is not None and start >= 0 and step > 0:
            before = start
        if start == 0 and step == 1 and end is not None and end >= np.iinfo(np.int32).max:
            count = length
        if before is None:
            positions = g.op("Range", g.constant(np.array(0)), _scalar(g, length), g.constant(np.array(1)))
            bounds = [_entry(g, n, i, len(axes)) for n in (starts, ends)]
            taken_ = g.op("Slice", positions, *bounds, g.ints(0), g.ints(step))
            # The axis's length itself stands in for the first position if nothing is taken.
            before = g.op("ReduceMin", vector(g, taken_, length), keepdims=1)
        cuts.append(Cut(axis, before, abs(step), count, length, step < 0))
    return cuts


def _numbers(a: Application, position: int) -> list[int] | None:
    """An optional input that must be constant."""
    if len(a.inputs) <= position or not a.inputs[position]:
        return None
    value = a.graph.value(a.inputs[position])
    if value is None:
        refuse(a, "axes or steps", "known only at run time", remedy="export them as constants")
    return [int(v) for v in value]


def _scalar(g: GraphBuilder, number: int | str) -> str:
    return g.constant(np.array(number)) if isinstance(number, int) else g.op("Squeeze", number, g.ints(0))


def _entry(g: GraphBuilder, numbers: str, index: int, count: int) -> str:
    """One entry of a vector of integers, as an int64 vector."""
    kind = g.types.get(numbers)
    if kind is not None and kind.dtype != TensorProto.INT64:
        numbers = g.op("Cast", numbers, to=TensorProto.INT64)
    return numbers if count == 1 else g.op("Slice", numbers, g.ints(index), g.ints(index + 1))


RULES: Mapping[str, Rule] = MappingProxyType({"Concat": concat, "Slice": slice_, "Split": split})
