"""The output shapes of operators whose targets or bounds are given as sizes, where onnx says too little."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from onnx import NodeProto

from laconic.training.source.known import Known
from laconic.training.source.shape_values import numbers
from laconic.training.source.sizes import Size, product
from laconic.training.source.tensors import attributes

OutputShape: TypeAlias = Callable[[Known, NodeProto], Sequence[Size] | None]
"""`operator(known, node)`: the shape of the first output; None where sizes cannot say it."""


def reshaped(node: NodeProto, source: Sequence[Size], target: Sequence[Size]) -> list[Size] | None:
    """The shape that a Reshape to `target` gives, if sizes can say it."""
    zero = bool(attributes(node).get("allowzero", 0))
    result: list[Size | None] = []
    for i, size in enumerate(target):
        if size.number == 0 and not zero:
            if i >= len(source):
                return None
            size = source[i]
        result.append(None if size.number == -1 else size)
    if None in result:
        rest = product(source).divided(product([s for s in result if s is not None]))
        if rest is None or result.count(None) > 1:
            return None
        result = [rest if s is None else s for s in result]
    return [s for s in result if s is not None]


def broadcast(a: Sequence[Size], b: Sequence[Size]) -> list[Size] | None:
    """The common shape of two; None where sizes cannot say which axis is the longer."""
    n, one = max(len(a), len(b)), Size.of(1)
    left, right = [*[one] * (n - len(a)), *a], [*[one] * (n - len(b)), *b]
    result = []
    for x, y in zip(left, right, strict=True):
        if x != y and one not in (x, y):
            return None
        result.append(y if x == one else x)
    return result


def _unchanged(known: Known, node: NodeProto) -> Sequence[Size] | None:
    return known.sizes(node.input[0])


def _reshape(known: Known, node: NodeProto) -> Sequence[Size] | None:
    target, source = known.values(node.input[1]), known.sizes(node.input[0])
    return None if target is None or source is None else reshaped(node, source, list(target))


def _constant_of_shape(known: Known, node: NodeProto) -> Sequence[Size] | None:
    target = known.values(node.input[0])
    return None if target is None else list(target)


def _expand(known: Known, node: NodeProto) -> Sequence[Size] | None:
    target, source = known.values(node.input[1]), known.sizes(node.input[0])
    return None if target is None or source is None else broadcast(source, list(target))


def _flatten(known: Known, node: NodeProto) -> Sequence[Size] | None:
    source = known.sizes(node.input[0])
    if source is None:
        return None
    axis = attributes(node).get("axis", 1)
    axis += len(source) if axis < 0 else 0
    return product(source[:axis]), product(source[axis:])


def _range(known: Known, node: NodeProto) -> Sequence[Size] | None:
    bounds = [b for b in map(known.values, node.input) if b is not None and b.ndim == 0]
    if len(bounds) != len(node.input):
        return None
    start, limit, step = (b.item() for b in bounds)
    length = (limit - start).divided(step)
    return [length] if length is not None and length.positive else None


def _tile(known: Known, node: NodeProto) -> Sequence[Size] | None:
    source, repeats = known.sizes(node.input[0]), known.values(node.input[1])
    if source is None or repeats is None or len(source) != len(repeats):
        return None
    return [a * b for a, b in zip(source, repeats, strict=True)]


def _concat(known: Known, node: NodeProto) -> Sequence[Size] | None:
    axis = attributes(node).get("axis", 0)
    shapes = [s for s in map(known.sizes, node.input) if s is not None]
    if len(shapes) != len(node.input) or len({len(s) for s in shapes}) != 1:
        return None
    # Along the other axes all are equal, so a number that one knows holds for all.
    joined = [
        next((s for s in along if s.number is not None), along[0]) for along in zip(*shapes, strict=True)
    ]
    total = Size.of(0)
    for shape in shapes:
        total += shape[axis]
    joined[axis] = total
    return joined


def _slice(known: Known, node: NodeProto) -> Sequence[Size] | None:
    """By bounds that are sizes, as exporters cut a table of positions to the length at hand."""
    source = known.sizes(node.input[0])
    given = [known.values(i) if i else None for i in node.input[1:]]
    if source is None or len(given) < 2 or given[0] is None or given[1] is None:
        return None
    axes = numbers(given[2]) if len(given) > 2 and given[2] is not None else np.arange(len(given[0]))
    steps = numbers(given[3]) if len(given) > 3 and given[3] is not None else np.ones(len(given[0]), int)
    if axes is None or steps is None or np.any(steps != 1):
        return None
    sizes = list(source)
    for axis, start, end in zip(axes.tolist(), given[0], given[1], strict=True):
        length = _cut(source[axis], start, end)
        if length is None:
            return None
        sizes[axis] = length
    return sizes


def _cut(size: Size, start: Size, end: Size) -> Size | None:
    """The length of an axis from `start` to `end`."""
    first, last = start.number, end.number
    if first is None or first < 0:
        return None
    if last is None:
        stop = end
    elif last < 0:
        stop = size + end
    elif size.number is not None:
        stop = Size.of(min(last, size.number))
    elif last >= 2**31 - 1:
        stop = size
    else:
        return None
    length = stop - start
    if length.number is not None:
        return Size.of(max(length.number, 0))
    return length if length.positive else None


def _resize(known: Known, node: NodeProto) -> Sequence[Size] | None:
    """To sizes, or by constant scales: an axis that keeps its size keeps its name."""
    source = known.sizes(node.input[0])
    settings = attributes(node)
    wanted = known.values(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    scales = known.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if source is None or settings.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    axes = [axis % len(source) for axis in settings.get("axes", range(len(source)))]
    sizes = list(source)
    if wanted is not None and len(wanted) == len(axes):
        for axis, size in zip(axes, wanted, strict=True):
            sizes[axis] = size
    elif scales is not None and len(scales) == len(axes):
        for axis, scale in zip(axes, scales.tolist(), strict=True):
            length = source[axis].number
            if length is not None:
                sizes[axis] = Size.of(math.floor(length * scale))
            elif scale != 1:
                return None
    else:
        return None
    return sizes


OUTPUT_SHAPES: Mapping[str, OutputShape] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "MeanVarianceNormalization": _unchanged,
    "Range": _range,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Tile": _tile,
}
