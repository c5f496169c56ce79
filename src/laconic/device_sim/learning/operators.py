"""How each operator is computed for many devices at once: one rule for each, by its name.

A rule appends the stacked form of a node of which at least one input is stacked, and says whether the result
is. What it cannot turn it refuses with `ModelError`. The stacked form of a tensor of rank r has rank r + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from onnx import NodeProto, helper

from laconic.device_sim.learning.place import Place
from laconic.errors import ModelError

WIDEST_TABLE = 256
"""Classes up to which rows of a table take the place of OneHot: a tenth of its time with ten."""

Rule: TypeAlias = Callable[[Place, NodeProto], bool]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _elementwise(p: Place, node: NodeProto) -> bool:
    rank = max(p.rank(i) for i in node.input if i)
    inputs = [p.lifted(i, rank) if i else "" for i in node.input]
    return p.result(node, node.op_type, *inputs, **_attributes(node))


def _softmax(p: Place, node: NodeProto) -> bool:
    axis = _attributes(node).get("axis", -1)
    return p.result(node, node.op_type, p.input(node.input[0]), axis=_shifted(axis))


def _one_hot(p: Place, node: NodeProto) -> bool:
    classes, depth, values = node.input
    if p.is_stacked(depth) or p.is_stacked(values):
        raise ModelError("OneHot whose depth or values differ between devices")
    axis = _shifted(_attributes(node).get("axis", -1))
    width, ends, limit = p.value(depth), p.value(values), p.limit(classes)
    if width is not None and ends is not None and limit is not None and axis in (-1, p.rank(classes) + 1):
        size = int(width.item())
        if limit <= size <= WIDEST_TABLE:
            table = np.where(np.eye(size, dtype=bool), ends[1], ends[0])
            return p.result(node, "Gather", p.constant(table), p.input(classes), axis=0)
    return p.result(node, "OneHot", *(p.input(i) for i in (classes, depth, values)), axis=axis)


def _reduce(p: Place, node: NodeProto) -> bool:
    x, attributes = node.input[0], _attributes(node)
    named = p.value(node.input[1]) if len(node.input) > 1 and node.input[1] else np.empty(0, np.int64)
    if named is None:
        raise ModelError("axes of a reduction that are not constant", value=node.op_type)
    rank = p.rank(x)
    axes = [int(a) % rank + 1 for a in named.ravel()] if rank else []
    if not named.size and not attributes.get("noop_with_empty_axes", 0):
        axes = list(range(1, rank + 1))
    if not axes:
        raise ModelError("reduction over no axis", value=node.output[0])
    keepdims = attributes.get("keepdims", 1)
    if node.op_type == "ReduceSum" and axes == [1] and p.is_single(x):
        if keepdims:
            return p.result(node, "Identity", p.input(x))
        return p.result(node, "Squeeze", p.input(x), p.ints(axes))
    return p.result(node, node.op_type, p.input(x), p.ints(axes), keepdims=keepdims)


def _gemm(p: Place, node: NodeProto) -> bool:
    how = _attributes(node)
    a, b = (_turned(p, i, how.get(f"trans{letter}", 0)) for i, letter in zip(node.input, "AB", strict=False))
    if not (p.is_stacked(node.input[0]) or p.is_stacked(node.input[1])):
        # Only what is added differs.
        raise ModelError("Gemm of what is the same for all devices")
    alpha, beta = float(how.get("alpha", 1.0)), float(how.get("beta", 1.0))
    added = node.input[2] if len(node.input) > 2 else ""
    if alpha == 1.0 and not added:
        return p.result(node, "MatMul", a, b)
    product = p.op("MatMul", a, b)
    if not added:
        return p.result(node, "Mul", product, p.real(alpha))
    if alpha != 1.0:
        product = p.op("Mul", product, p.real(alpha))
    base = p.repeated(added, node.output[0])
    if beta != 1.0:
        base = p.op("Mul", base, p.real(beta))
    return p.result(node, "Add", product, base)


def _turned(p: Place, matrix: str, transposed: int) -> str:
    x = p.input(matrix)
    return p.op("Transpose", x, perm=[0, 2, 1] if p.is_stacked(matrix) else [1, 0]) if transposed else x


def _matmul(p: Place, node: NodeProto) -> bool:
    ranks = [p.rank(i) for i in node.input]
    if min(ranks) < 2:
        raise ModelError("MatMul of a vector", value=node.output[0])
    return p.result(node, "MatMul", *(p.lifted(i, max(ranks)) for i in node.input))


def _transpose(p: Place, node: NodeProto) -> bool:
    rank = p.rank(node.input[0])
    perm = _attributes(node).get("perm", range(rank - 1, -1, -1))
    return p.result(node, "Transpose", p.input(node.input[0]), perm=[0, *(a + 1 for a in perm)])


def _reshape(p: Place, node: NodeProto) -> bool:
    shape = p.value(node.input[1])
    if shape is None or _attributes(node).get("allowzero", 0):
        raise ModelError("Reshape to a shape that is not constant", value=node.output[0])
    dims = [int(d) for d in shape.ravel()]
    return p.result(node, "Reshape", p.input(node.input[0]), p.ints([0, *dims]))


def _flatten(p: Place, node: NodeProto) -> bool:
    axis = _attributes(node).get("axis", 1)
    if axis != 1:
        raise ModelError("axis of a Flatten", value=axis, limit=1)
    rank = p.rank(node.input[0])
    if rank == 1:
        return p.result(node, "Unsqueeze", p.input(node.input[0]), p.ints([2]))
    return p.result(node, "Reshape", p.input(node.input[0]), p.ints([0, 0, -1]))


def _axes(p: Place, node: NodeProto) -> bool:
    axes = p.value(node.input[1]) if len(node.input) > 1 else None
    if axes is None:
        raise ModelError(f"{node.op_type} of axes that are not constant", value=node.output[0])
    rank = p.rank(node.output[0] if node.op_type == "Unsqueeze" else node.input[0])
    moved = [int(a) % rank + 1 for a in axes.ravel()]
    return p.result(node, node.op_type, p.input(node.input[0]), p.ints(moved))


def _size(p: Place, node: NodeProto) -> bool:
    """How many elements each device has: the same for all."""
    if p.sample(node.input[0]) is not None:
        each = p.constant(np.array(p.sample(node.input[0]), np.int64))
        p.result(node, "Mul", p.op("Squeeze", p.samples(), p.ints([0])), each)
        return False
    x, leading = p.shaped(node.input[0])
    many = p.op("ReduceProd", p.op("Shape", x, start=0, end=leading), keepdims=0)
    p.result(node, "Div", p.op("Size", x), many)
    return False


def _shape(p: Place, node: NodeProto) -> bool:
    how, (x, leading) = _attributes(node), p.shaped(node.input[0])
    limits = {k: how[k] + leading if how[k] >= 0 else how[k] for k in ("start", "end") if k in how}
    p.result(node, "Shape", x, **{"start": leading, **limits})
    return False


def _shifted(axis: int) -> int:
    return axis + 1 if axis >= 0 else axis


# fmt: off
_ELEMENTWISE = (
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pow",
    "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt",
    "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where", "Xor",
)
# fmt: on

# fmt: off
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
)
# fmt: on

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "OneHot": _one_hot,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Softmax": _softmax,
    "Squeeze": _axes,
    "Transpose": _transpose,
    "Unsqueeze": _axes,
}
"""Softmax as of opset 13, reductions as of 18: those of the graphs in a bundle."""
