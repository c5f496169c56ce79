"""Goes through a foreign graph once, front to back, and writes down what it means in opset 18.

Every node is looked at with the types of its inputs known. It may be translated into others (an older or
newer opset, another domain, a function body), computed at once (constants, the arithmetic of shapes), dropped
(Identity, sequences), or kept. What is kept gets its types, open axes with names of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    NodeProto,
    TensorProto,
    TypeProto,
    defs,
    helper,
    numpy_helper,
    shape_inference,
)

from laconic.errors import ModelError
from laconic.training.assemble import IR_VERSION, OPSET
from laconic.training.backward import unsupported
from laconic.training.builder import BATCH, Dim, Shape, TensorType
from laconic.training.source.evaluation import evaluated
from laconic.training.source.scopes import rename
from laconic.training.source.shape_values import SHAPE_OPERATORS, Values, numbers
from laconic.training.source.sizes import Axes, Size, product
from laconic.training.source.tensors import array_of, attributes, constant_of

Translate = Callable[["Reading", NodeProto, int], bool]
"""`translate(reading, node, version)` writes what `node` means through `reading`, or says False: it stays."""

_FOLDED_ELEMENTS = 1 << 24
"""The most elements of a constant that is computed here: a hostile file asks for more."""

_NODES = 200_000
"""The most nodes that a file may come to when functions and branches are written out."""

_CONTRADICTION = "export the model again: this file contradicts itself"

_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})

_ARRANGING = frozenset(
    {
        "Expand",
        "Reshape",
        "Transpose",
        "Slice",
        "Squeeze",
        "Unsqueeze",
        "Concat",
        "Identity",
        "Tile",
        "Gather",
    }
)
"""Operators that only place the elements of their input anew."""

_EXACT = frozenset({"Cast", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Mul", "Add", "Sub"})
"""Operators that give the same whole numbers for integers and for small real numbers."""

_SAME_SHAPE = frozenset({"MeanVarianceNormalization"})
"""Operators of which onnx does not say that the output has the input's shape."""

_BY_VALUE = frozenset(
    {"NonZero", "Unique", "Compress", "Range", "NonMaxSuppression", "Resize", "Slice", "Pad"}
)
"""Operators whose open axes depend on what their inputs hold, not only on their shapes."""


class Reading:
    """What is known so far: nodes of opset 18 in order, constants, weights, types."""

    def __init__(self, translate: Translate, taken: Collection[str], traced: int | None) -> None:
        self.nodes: list[NodeProto] = []
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, NDArray[Any]] = {}
        self.weights: dict[str, NDArray[np.float32]] = {}
        self.varying: set[str] = set()
        self.zeros: set[str] = set()
        self.axes = Axes()
        self.traced = traced
        self.inputs: set[str] = set()
        self.outputs: set[str] = set()
        self._translate = translate
        self._taken = set(taken)
        self._values: dict[str, Values] = {}
        self._aliases: dict[str, str] = {"": ""}
        self._sequences: dict[str, list[str]] = {}
        self._open: dict[object, str] = {}
        self._made: dict[str, NodeProto] = {}
        self._read = 0

    # --- names and values ---

    def fresh(self, hint: str) -> str:
        """A name that nothing bears."""
        name, i = hint, 0
        while name in self._taken:
            i += 1
            name = f"{hint}/{i}"
        self._taken.add(name)
        return name

    def constant(self, value: Any, dtype: Any = None, *, name: str | None = None) -> str:
        """A new constant."""
        array = np.asarray(value) if dtype is None else np.asarray(value, dtype)
        return self.enter(name or self.fresh("read/constant"), array)

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(values, np.int64)

    def floats(self, value: Any) -> str:
        """A float32 constant, a scalar unless `value` has axes."""
        return self.constant(value, np.float32)

    def enter(self, name: str, array: NDArray[Any]) -> str:
        """Give a constant its name."""
        self.constants[name] = array
        self.types[name] = TensorType(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        return name

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Enter a weight that the file does not hold as a tensor; its name may get a number."""
        name = self.fresh(name)
        self.weights[name] = np.ascontiguousarray(array, np.float32)
        self.declare(name, TensorType(TensorProto.FLOAT, self.weights[name].shape))
        self.varying.add(name)
        return name

    def declare(self, name: str, kind: TensorType) -> None:
        """Make a tensor from outside known."""
        self._taken.add(name)
        self.types[name] = kind

    def now(self, name: str) -> str:
        """The tensor that stands for a name of the file."""
        return self._aliases.get(name, name)

    def value(self, name: str) -> NDArray[Any] | None:
        """The value of a constant, else None."""
        return self.constants.get(name)

    def maker(self, name: str) -> NodeProto | None:
        """The kept node that makes a tensor."""
        return self._made.get(name)

    def shape(self, name: str) -> Shape:
        """A tensor's shape; raises `ModelError` where it is unknown."""
        known = self.types.get(name)
        if known is None or known.shape is None:
            raise ModelError(f"shape of {name!r} cannot be inferred", remedy="export with fixed sample axes")
        return known.shape

    def rank(self, name: str) -> int | None:
        """The number of axes, if known."""
        known = self.types.get(name)
        return None if known is None or known.shape is None else len(known.shape)

    # --- writing ---

    def op(self, op_type: str, *inputs: str, outputs: Sequence[str] | int = 1, **settings: Any) -> str:
        """Write a node of opset 18; the name of its first output."""
        names = (
            [self.fresh(f"read/{op_type}") for _ in range(outputs)] if isinstance(outputs, int) else outputs
        )
        self.read(helper.make_node(op_type, list(inputs), list(names), **settings), OPSET)
        return self.now(names[0])

    def alias(self, name: str, target: str) -> None:
        """Let `name` be another name of `target`."""
        target = self.now(target)
        if name in self.outputs:
            self._keep(helper.make_node("Identity", [target], [name]))
        elif target in self.constants or target in self.types or target in self._sequences:
            self._aliases[name] = target
        else:
            raise ModelError(f"tensor {target!r} is used before it is made", remedy=_CONTRADICTION)

    def read(self, node: NodeProto, version: int) -> None:
        """Take in one node of the file, or of a translation; `version` is its domain's opset."""
        self._read += 1
        if self._read > _NODES:
            raise ModelError("nodes with all functions and branches written out", limit=_NODES)
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self.now(i) for i in node.input]
        if copy.op_type == "If" and not copy.domain:
            self._branch(copy, version)
        elif not self._simple(copy) and not self._translate(self, copy, version):
            self._settle(copy)

    def sequence(self, name: str) -> list[str] | None:
        """The tensors of a sequence, if `name` is one."""
        return self._sequences.get(name)

    def enter_sequence(self, name: str, items: Sequence[str]) -> None:
        """Make a sequence of tensors known."""
        self._sequences[name] = list(items)

    # --- one node ---

    def _simple(self, node: NodeProto) -> bool:
        """Nodes that leave nothing behind."""
        if node.domain:
            return False
        if node.op_type == "Constant":
            self.enter(node.output[0], constant_of(node))
            return True
        same = node.op_type == "Identity"
        if node.op_type == "Cast" and node.input:
            known = self.types.get(node.input[0])
            same = known is not None and attributes(node).get("to") == known.dtype
        if same:
            self.alias(node.output[0], node.input[0])
        return same

    def _settle(self, node: NodeProto) -> None:
        """Compute the node, or keep it."""
        for name in filter(None, node.input):
            if name not in self.types and name not in self.constants:
                raise ModelError(
                    f"input {name!r} of node {node.name or node.output[0]!r} is made nowhere before it",
                    remedy=_CONTRADICTION,
                )
        values = self._shape_values(node)
        if values is not None and node.output[0] not in self.outputs:
            known = numbers(values)
            kind = self._inferred(node)[node.output[0]]
            if known is not None and kind.dtype != TensorProto.UNDEFINED:
                self.enter(node.output[0], known.astype(helper.tensor_dtype_to_np_dtype(kind.dtype)))
                return
        results = self._computed(node)
        if results is not None:
            for name, array in zip(node.output, results, strict=False):
                if name:
                    self.enter(name, np.asarray(array))
            self._reinstate(node)
            return
        self._keep(node)
        if values is not None:
            self._values[node.output[0]] = values

    def _reinstate(self, node: NodeProto) -> None:
        """A graph output must be made by a node, even when it is constant."""
        for name in node.output:
            if name in self.outputs:
                inner = self.constant(self.constants.pop(name))
                self._keep(helper.make_node("Identity", [inner], [name]))

    def _keep(self, node: NodeProto) -> None:
        self._infer(node)
        self.nodes.append(node)
        for name in filter(None, node.output):
            self._made[name] = node
            self._taken.add(name)
        if self._is_zero(node):
            self.zeros.update(node.output)
        if any(i in self.varying for i in node.input):
            real = (TensorProto.FLOAT, TensorProto.UNDEFINED)
            self.varying.update(o for o in node.output if o and self.types[o].dtype in real)

    def _is_zero(self, node: NodeProto) -> bool:
        """Whether the node makes nothing but zeros, as exporters make initial states."""
        if node.op_type == "ConstantOfShape":
            value = attributes(node).get("value")
            return value is None or not array_of(value).any()
        inputs = node.input if node.op_type == "Concat" else node.input[:1]
        return node.op_type in _ARRANGING and all(self.holds_zeros(i) for i in inputs)

    def holds_zeros(self, name: str) -> bool:
        """Whether a tensor is known to be zero everywhere."""
        value = self.constants.get(name)
        return name in self.zeros or (value is not None and value.dtype.kind == "f" and not value.any())

    def _computed(self, node: NodeProto) -> Sequence[Any] | None:
        if node.op_type in _RANDOM or not all(i in self.constants for i in node.input if i):
            return None
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            return None
        if node.op_type == "Dropout" and len(node.input) > 2:
            return None
        for kind in self._inferred(node).values():
            shape = kind.shape or ()
            if np.prod([float(d) for d in shape if isinstance(d, int)]) > _FOLDED_ELEMENTS:
                raise ModelError(f"elements of constant {node.output[0]!r}", limit=_FOLDED_ELEMENTS)
        return evaluated(node, {i: self.constants[i] for i in node.input if i})

    # --- shapes ---

    def values(self, name: str, real: bool = False) -> Values | None:
        """A tensor's elements as sizes, if all are known as such; of real numbers only with `real`."""
        if name in self._values:
            return self._values[name] if real or self.types[name].dtype != TensorProto.FLOAT else None
        array = self.constants.get(name)
        if array is None or array.dtype.kind not in "iubf" or array.size > 4096:
            return None
        if array.dtype.kind == "b":
            return array.astype(object)
        if array.dtype.kind == "f" and not (
            real and array.size < 16 and np.isfinite(array).all() and np.array_equal(array, np.rint(array))
        ):
            return None
        sized = np.empty(array.shape, object)
        for i, v in np.ndenumerate(array):
            sized[i] = Size.of(int(v))
        return sized

    def sizes(self, name: str) -> list[Size] | None:
        """A tensor's shape as sizes."""
        known = self.types.get(name)
        return None if known is None or known.shape is None else [self.axes.size(d) for d in known.shape]

    def _shape_values(self, node: NodeProto) -> Values | None:
        rule = SHAPE_OPERATORS.get(node.op_type)
        if rule is None or node.domain or not node.input:
            return None
        if node.op_type in ("Shape", "Size"):
            sizes = self.sizes(node.input[0])
            if sizes is None:
                return None
            given: list[Values | None] = [_array(sizes)]
        else:
            # Some exporters compute shapes in real numbers: exact, but for quotients.
            real = node.op_type in _EXACT
            given = [self.values(i, real) if i else None for i in node.input]
            if any(v is None for v, i in zip(given, node.input, strict=True) if i):
                return None
        try:
            return rule(attributes(node), given)
        except (ValueError, IndexError, TypeError, AttributeError, KeyError):
            return None  # malformed, or beyond what sizes can say: shape inference and onnxruntime judge it

    def _infer(self, node: NodeProto) -> None:
        for name, kind in self._inferred(node).items():
            self.types[name] = kind
        for name in filter(None, node.output):
            self.types.setdefault(name, TensorType(TensorProto.UNDEFINED, None))

    def _inferred(self, node: NodeProto) -> dict[str, TensorType]:
        try:
            schema = defs.get_schema(node.op_type, OPSET, node.domain)
        except defs.SchemaError:
            raise unsupported(node) from None
        known = {i: _type_proto(self.types[i]) for i in node.input if i in self.types}
        data = {
            i: numpy_helper.from_array(self.constants[i], i)
            for i in node.input
            if i in self.constants and self.constants[i].size <= 4096
        }
        try:
            found = shape_inference.infer_node_outputs(
                schema,
                node,
                known,
                data,
                opset_imports=[helper.make_opsetid("", OPSET)],
                ir_version=IR_VERSION,
            )
        except Exception as e:  # onnx raises its own InferenceError, ValueError or RuntimeError here
            raise ModelError(
                f"shapes at node {node.name or node.output[0]!r} ({node.op_type}) do not fit",
                value=_first_line(e),
                remedy=_CONTRADICTION,
            ) from e
        kinds = {name: _tensor_type(found[name]) for name in node.output if name in found}
        own = self._own_shape(node)
        if own is not None:
            name = node.output[0]
            dtype = kinds[name].dtype if name in kinds else self.types[node.input[0]].dtype
            kinds[name] = TensorType(dtype, own)
        self._check_contraction(node)
        return {
            name: self._named(node, i, name, kinds.get(name)) for i, name in enumerate(node.output) if name
        }

    def _own_shape(self, node: NodeProto) -> Shape | None:
        """The output shape of operators whose target is given as sizes."""
        if node.op_type in _SAME_SHAPE:
            return self.types[node.input[0]].shape
        if node.op_type == "Reshape":
            target, source = self.values(node.input[1]), self.sizes(node.input[0])
            resolved = None if target is None or source is None else reshaped(node, source, list(target))
            return None if resolved is None else tuple(self.axes.dim(s) for s in resolved)
        if node.op_type in ("ConstantOfShape", "Expand"):
            target = self.values(node.input[-1])
            if target is None:
                return None
            wanted: list[Size] | None = list(target)
            if node.op_type == "Expand":
                source = self.sizes(node.input[0])
                wanted = None if source is None else broadcast(source, list(target))
            return None if wanted is None else tuple(self.axes.dim(s) for s in wanted)
        if node.op_type in ("Flatten",):
            source = self.sizes(node.input[0])
            if source is None:
                return None
            axis = attributes(node).get("axis", 1)
            axis += len(source) if axis < 0 else 0
            parts = (source[:axis], source[axis:])
            return tuple(self.axes.dim(product(part)) for part in parts)
        if node.op_type == "Range":
            bounds = [self.values(i) for i in node.input]
            if all(b is not None and b.ndim == 0 for b in bounds):
                start, limit, step = (b.item() for b in bounds if b is not None)
                length = (limit - start).divided(step)
                if length is not None and length.positive:
                    return (self.axes.dim(length),)
        if node.op_type == "Slice":
            return self._sliced(node)
        if node.op_type == "Resize":
            return self._resized(node)
        if node.op_type == "Tile":
            source, repeats = self.sizes(node.input[0]), self.values(node.input[1])
            if source is not None and repeats is not None and len(source) == len(repeats):
                return tuple(self.axes.dim(a * b) for a, b in zip(source, repeats, strict=True))
        if node.op_type == "Concat":
            axis = attributes(node).get("axis", 0)
            shapes = [self.sizes(i) for i in node.input]
            if all(s is not None and len(s) == len(shapes[0] or ()) for s in shapes):
                known = [s for s in shapes if s is not None]
                total = known[0][axis]
                for s in known[1:]:
                    total = total + s[axis]
                dims: list[Dim] = []
                for i, along in enumerate(zip(*known, strict=True)):
                    certain = [self.axes.dim(s) for s in along]
                    dims.append(next((d for d in certain if isinstance(d, int)), certain[0]))
                    if i == axis % len(known[0]):
                        dims[-1] = self.axes.dim(total)
                return tuple(dims)
        return None

    def _sliced(self, node: NodeProto) -> Shape | None:
        """A Slice by bounds that are sizes, as exporters cut a table of positions to the length at hand."""
        source = self.sizes(node.input[0])
        given = [self.values(i) if i else None for i in node.input[1:]]
        if source is None or len(given) < 2 or given[0] is None or given[1] is None:
            return None
        axes = numbers(given[2]) if len(given) > 2 and given[2] is not None else np.arange(len(given[0]))
        steps = numbers(given[3]) if len(given) > 3 and given[3] is not None else np.ones(len(given[0]), int)
        if axes is None or steps is None or np.any(steps != 1):
            return None
        sizes = list(source)
        for axis, start, end in zip(axes.tolist(), given[0], given[1], strict=True):
            size = source[axis]
            first, last = start.number, end.number
            if first is None or first < 0:
                return None
            if last is not None:
                if last < 0:
                    stop = size + end
                elif size.number is not None:
                    stop = Size.of(min(last, size.number))
                elif last >= 2**31 - 1:
                    stop = size
                else:
                    return None
            else:
                stop = end
            length = stop - start
            if length.number is not None:
                length = Size.of(max(length.number, 0))
            elif not length.positive:
                return None
            sizes[axis] = length
        return tuple(self.axes.dim(s) for s in sizes)

    def _resized(self, node: NodeProto) -> Shape | None:
        """A Resize to sizes, or by constant scales: an axis that keeps its size keeps its name."""
        source = self.sizes(node.input[0])
        settings = attributes(node)
        given = [self.values(i) if i else None for i in node.input[3:4]]
        scales = self.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        wanted = given[0] if given else None
        if source is None or settings.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            return None
        axes = [axis % len(source) for axis in settings.get("axes", range(len(source)))]
        sizes = list(source)
        if wanted is not None and len(wanted) == len(axes):
            for axis, size in zip(axes, wanted, strict=True):
                sizes[axis] = size
        elif scales is not None and len(scales) == len(axes):
            for axis, scale in zip(axes, scales.tolist(), strict=True):
                known = source[axis].number
                if known is not None:
                    sizes[axis] = Size.of(math.floor(known * scale))
                elif scale != 1:
                    return None
        else:
            return None
        return tuple(self.axes.dim(s) for s in sizes)

    def _named(self, node: NodeProto, index: int, name: str, kind: TensorType | None) -> TensorType:
        """The type with a name for every open axis: the same for equal nodes on equal shapes."""
        if kind is None or kind.shape is None:
            return kind or TensorType(TensorProto.UNDEFINED, None)
        dims: list[Dim] = []
        for axis, dim in enumerate(kind.shape):
            dims.append(dim if dim != "" else self._open_axis(node, index, axis))
        return TensorType(kind.dtype, tuple(dims))

    def _open_axis(self, node: NodeProto, index: int, axis: int) -> str:
        shapes = tuple(self.types[i].shape if i in self.types else None for i in node.input)
        by_value = node.op_type in _BY_VALUE or None in shapes
        settings = tuple(a.SerializeToString(deterministic=True) for a in node.attribute)
        read = tuple(
            i if by_value or i not in self.constants else self.constants[i].tobytes()[:256]
            for i in node.input
            if by_value or i in self.constants
        )
        key = (node.op_type, settings, shapes, read, index, axis)
        if key not in self._open:
            self._open[key] = f"{node.output[index]}/axis{axis}"
        return self._open[key]

    def _check_contraction(self, node: NodeProto) -> None:
        """A weight has no open axes: where one meets the batch, samples have been mixed."""
        if node.op_type not in ("MatMul", "Gemm"):
            return
        a, b = (self.sizes(i) for i in node.input[:2])
        if not a or not b:
            return
        settings = attributes(node)
        left = a[-2] if settings.get("transA") and len(a) > 1 else a[-1]
        right = b[-1] if settings.get("transB") or len(b) == 1 else b[-2]
        if left != right and (left.number is None) != (right.number is None):
            mixed = left if left.number is None else right
            fixed = right if left.number is None else left
            name = node.name or node.output[0]
            if BATCH in mixed.names:
                raise ModelError(
                    f"node {name!r} mixes the batch axis with others",
                    value=str(mixed),
                    limit=str(fixed),
                    remedy="export with a batch axis that stays the first",
                )

    # --- branches ---

    def _branch(self, node: NodeProto, version: int) -> None:
        """Take the branch of an If whose condition is known."""
        condition = self.value(node.input[0]) if node.input else None
        symbolic = self._values.get(node.input[0]) if node.input else None
        if condition is None and symbolic is not None:
            condition = numbers(symbolic)
        if condition is None or condition.size != 1:
            raise unsupported(node, opset=version)
        wanted = "then_branch" if bool(condition.reshape(())) else "else_branch"
        branch = next((a.g for a in node.attribute if a.name == wanted), None)
        if branch is None:
            raise ModelError(f"node {node.name!r} (If) has no {wanted}")
        self.read_graph(branch, dict.fromkeys(self._own_names(branch)), version)
        for name, result in zip(node.output, branch.output, strict=False):
            if name:
                self.alias(name, self._inner[result.name])

    def _own_names(self, graph: GraphProto) -> list[str]:
        return [*(i.name for i in graph.initializer), *(o for n in graph.node for o in n.output if o)]

    def read_graph(self, graph: GraphProto, own: Mapping[str, None], version: int) -> None:
        """Take in a branch; its names give way to those that exist."""
        renamed = {name: self.fresh(name) for name in own}
        self._inner = renamed
        for initializer in graph.initializer:
            name = renamed[initializer.name]
            if initializer.name in self.weights:
                self._aliases[name] = initializer.name
            else:
                self.enter(name, array_of(initializer))
        for node in graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            rename(copy, renamed)
            self.read(copy, version)
            self._inner = renamed
        # What the branch returns may come from around it.
        self._inner = {**{o.name: o.name for o in graph.output}, **renamed}


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


def _array(sizes: Sequence[Size]) -> Values:
    array = np.empty(len(sizes), object)
    array[:] = sizes
    return array


def _type_proto(kind: TensorType) -> TypeProto:
    made: TypeProto = helper.make_tensor_type_proto(kind.dtype, kind.shape)
    return made


def _tensor_type(proto: TypeProto) -> TensorType:
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type, None)
    return TensorType(
        tensor.elem_type,
        tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim),
    )


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]
