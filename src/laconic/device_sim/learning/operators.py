"""How each operator is computed for many devices at once: one rule for each, by its name.

A rule appends the stacked form of a node of which at least one input is stacked, and says whether the result
is. What it cannot turn it refuses with `ModelError`. The stacked form of a tensor of rank r has rank r + 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from laconic.device_sim.learning.phases import Phase
from laconic.errors import ModelError


class Tensors(Protocol):
    """What is known of the tensors of the step."""

    stacked: set[str]
    shapes: dict[str, list[int | str | None]]
    data: Sequence[str]
    values: dict[str, NDArray[np.generic]]
    limits: dict[str, int]
    made: dict[str, Phase]
    single: bool

    def name(self, tensor: str, phase: Phase) -> str:
        """A tensor's name in the new graph, where it is read or made."""
        ...

    def shaped(self, tensor: str, phase: Phase) -> tuple[str, int]:
        """What has a stacked tensor's shape, in the new graph, behind so many leading axes."""
        ...


class Place:
    """Where nodes are appended: the loop's body, or the graph around it."""

    def __init__(self, tensors: Tensors, phase: Phase, around: Place | None = None, prefix: str = "") -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._tensors, self._phase, self._around = tensors, phase, around
        self._prefix = prefix or f"{phase}/"
        self._lifted: dict[tuple[str, int], str] = {}
        self._known: dict[str, str] = {}
        self._widths = ""

    def is_stacked(self, tensor: str) -> bool:
        """Whether each device has its own."""
        return tensor in self._tensors.stacked

    def rank(self, tensor: str) -> int:
        """A tensor's rank without the devices' axis. Raises `ModelError`."""
        if tensor not in self._tensors.shapes:
            raise ModelError("rank of a tensor of the training step is not known", value=tensor)
        return len(self._tensors.shapes[tensor])

    def shaped(self, tensor: str) -> tuple[str, int]:
        """What has a stacked tensor's shape behind so many leading axes."""
        return self._tensors.shaped(tensor, self._phase)

    def value(self, tensor: str) -> NDArray[np.generic] | None:
        """A constant's value."""
        return self._tensors.values.get(tensor)

    def limit(self, tensor: str) -> int | None:
        """What integers that are not negative are known to stay below."""
        return self._tensors.limits.get(tensor)

    def input(self, tensor: str) -> str:
        """An input of a node as it is."""
        value = self.value(tensor) if tensor else None
        return self._named(tensor) if value is None and tensor else self._constant(tensor, value)

    def lifted(self, tensor: str, rank: int) -> str:
        """An input of a node, of `rank` without the devices' axis, so that it is broadcast as it was."""
        missing = rank - self.rank(tensor)
        if not missing or not self.is_stacked(tensor):
            return self.input(tensor)
        if self._around is not None and self._tensors.made.get(tensor, "outer") == "outer":
            return self._around.lifted(tensor, rank)
        if (tensor, rank) not in self._lifted:
            axes = self.ints(range(1, 1 + missing))
            self._lifted[tensor, rank] = self.op("Unsqueeze", self.input(tensor), axes)
        return self._lifted[tensor, rank]

    def has_batch(self, tensor: str) -> bool:
        """Whether a tensor's first axis but that of the devices is known to be the samples of a batch."""
        shapes = self._tensors.shapes
        first = shapes.get(tensor, [None])[:1]
        return first == shapes[self._tensors.data[0]][:1] and isinstance(first[0], str)

    def sample(self, tensor: str) -> int | None:
        """How many elements of a tensor there are for each sample of a batch; None if that is not known."""
        rest = [d for d in self._tensors.shapes.get(tensor, [])[1:] if isinstance(d, int)]
        whole = self.has_batch(tensor) and len(rest) + 1 == self.rank(tensor)
        return math.prod(rest) if whole else None

    def samples(self) -> str:
        """The number of samples of a batch, shape `(1,)`, in the graph around the loop."""
        return self.op("Shape", self._tensors.data[0], start=2, end=3)

    def is_single(self, tensor: str) -> bool:
        """Whether that batch has one sample."""
        return self._tensors.single and self.has_batch(tensor)

    def repeated(self, row: str, like: str) -> str:
        """A row for each device, lifted to rank 2; repeated if `like`, to which it is added, has a row for
        each sample of a batch.

        To repeat it and to add the same shape takes two thirds of adding by broadcasting short rows.
        """
        lifted, rank = self.lifted(row, 2), self.rank(row)
        if self._around is None or rank != 1 or self._tensors.single or not self.has_batch(like):
            return lifted
        if not self._widths:
            around = self._around
            self._widths = around.op("Concat", around.ints([1]), around.samples(), around.ints([1]), axis=0)
        return self.op("Expand", lifted, self._widths)

    def ints(self, values: Sequence[int]) -> str:
        """A constant int64 vector."""
        return self._constant(f"ints {tuple(values)}", np.array(values, np.int64))

    def real(self, value: float) -> str:
        """A constant float32 scalar."""
        return self._constant(f"real {value!r}", np.asarray(value, np.float32))

    def constant(self, value: NDArray[np.generic]) -> str:
        """Any constant."""
        return self._constant(f"table {value.tobytes()!r}", value)

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; the name of its result."""
        return self._add(op_type, inputs, f"{self._prefix}made {len(self.nodes)}", attributes)

    def result(self, node: NodeProto, op_type: str, *inputs: str, **attributes: Any) -> bool:
        """Append the node that makes what `node` makes; true, for rules to return."""
        self._add(op_type, inputs, self._named(node.output[0]), attributes)
        return True

    def same(self, node: NodeProto) -> None:
        """Append the node as it is."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self.input(i) for i in node.input]
        copy.output[:] = [self._named(o) if o else "" for o in node.output]
        copy.name = copy.output[0]
        self.nodes.append(copy)

    def merged(self, tensor: str, name: str) -> None:
        """Steps and devices as one axis."""
        rest = self.op("Concat", self.ints([-1]), self.op("Shape", tensor, start=2), axis=0)
        self._add("Reshape", [tensor, rest], name, {})

    def parted(self, tensor: str, around: str, name: str = "") -> str:
        """And back: `around` is the length of both."""
        shape = self.op("Concat", around, self.op("Shape", tensor, start=1), axis=0)
        return self._add("Reshape", [tensor, shape], name or f"parted/{tensor}", {})

    def _named(self, tensor: str) -> str:
        return self._tensors.name(tensor, self._phase)

    def _add(self, op_type: str, inputs: Sequence[str], out: str, attributes: Mapping[str, Any]) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [out], name=out, **attributes))
        return out

    def _constant(self, key: str, value: NDArray[np.generic] | None) -> str:
        if value is None:
            return ""
        if key not in self._known:
            self._known[key] = f"{self._prefix}constant {len(self._known)}"
            self.constants.append(numpy_helper.from_array(value, self._known[key]))
        return self._known[key]


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
