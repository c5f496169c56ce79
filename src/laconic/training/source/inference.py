"""Infers the types of a node's outputs, in which every open axis bears a name."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, TypeProto, defs, helper, numpy_helper, shape_inference

from laconic.errors import ModelError
from laconic.training.assemble import IR_VERSION, OPSET
from laconic.training.backward import unsupported
from laconic.training.builder import BATCH, TensorType
from laconic.training.source.known import Known
from laconic.training.source.output_shapes import OUTPUT_SHAPES
from laconic.training.source.shape_values import SHAPE_OPERATORS, Values
from laconic.training.source.tensors import attributes

CONTRADICTION = "export the model again: this file contradicts itself"
"""The way out where what a file says in one place does not fit what it says in another."""

_READ_ELEMENTS = 4096
"""The most elements of a constant that onnx's shape inference is shown: it reads shapes and bounds."""

_EXACT = frozenset({"Cast", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Mul", "Add", "Sub"})
"""Operators that give the same whole numbers for integers and for small real numbers."""

_BY_VALUE = frozenset(
    {"NonZero", "Unique", "Compress", "Range", "NonMaxSuppression", "Resize", "Slice", "Pad"}
)
"""Operators whose open axes depend on what their inputs hold, not only on their shapes."""


class Inference:
    """Infers from what is known; remembers the names that it gave to open axes."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._open: dict[object, str] = {}

    def types(self, node: NodeProto) -> dict[str, TensorType]:
        """The types of the node's outputs by name; what cannot be inferred has no shape.

        Raises `ModelError` where the types of the inputs do not fit the node, `UnsupportedOperator` where
        the opset does not have it.
        """
        known = self._known
        try:
            schema = defs.get_schema(node.op_type, OPSET, node.domain)
        except defs.SchemaError:
            raise unsupported(node) from None
        constants = {i: known.constants[i] for i in node.input if i in known.constants}
        try:
            found = shape_inference.infer_node_outputs(
                schema,
                node,
                {i: _type_proto(known.types[i]) for i in node.input if i in known.types},
                {i: numpy_helper.from_array(a, i) for i, a in constants.items() if a.size <= _READ_ELEMENTS},
                opset_imports=[helper.make_opsetid("", OPSET)],
                ir_version=IR_VERSION,
            )
        except Exception as e:  # onnx raises its own InferenceError, ValueError or RuntimeError here
            raise ModelError(
                f"shapes at node {node.name or node.output[0]!r} ({node.op_type}) do not fit",
                value=_first_line(e),
                remedy=CONTRADICTION,
            ) from e
        types = {name: _tensor_type(found[name]) for name in node.output if name in found}
        own = OUTPUT_SHAPES.get(node.op_type)
        sizes = None if own is None else own(known, node)
        if sizes is not None:
            name = node.output[0]
            dtype = types[name].dtype if name in types else known.types[node.input[0]].dtype
            types[name] = TensorType(dtype, tuple(known.axes.dim(s) for s in sizes))
        _check_contraction(known, node)
        return {name: self._named(node, i, types.get(name)) for i, name in enumerate(node.output) if name}

    def _named(self, node: NodeProto, index: int, kind: TensorType | None) -> TensorType:
        """The type with a name for every open axis: the same for equal nodes on equal shapes."""
        if kind is None or kind.shape is None:
            return kind or TensorType(TensorProto.UNDEFINED, None)
        dims = (d if d != "" else self._open_axis(node, index, axis) for axis, d in enumerate(kind.shape))
        return TensorType(kind.dtype, tuple(dims))

    def _open_axis(self, node: NodeProto, index: int, axis: int) -> str:
        types, constants = self._known.types, self._known.constants
        shapes = tuple(types[i].shape if i in types else None for i in node.input)
        by_value = node.op_type in _BY_VALUE or None in shapes
        settings = tuple(a.SerializeToString(deterministic=True) for a in node.attribute)
        read = tuple(
            i if by_value or i not in constants else constants[i].tobytes()[:256]
            for i in node.input
            if by_value or i in constants
        )
        key = (node.op_type, settings, shapes, read, index, axis)
        return self._open.setdefault(key, f"{node.output[index]}/axis{axis}")


def shape_values(known: Known, node: NodeProto) -> Values | None:
    """The elements of the node's output as sizes, if it computes with shapes."""
    rule = SHAPE_OPERATORS.get(node.op_type)
    if rule is None or node.domain or not node.input:
        return None
    if node.op_type in ("Shape", "Size"):
        sizes = known.sizes(node.input[0])
        if sizes is None:
            return None
        array = np.empty(len(sizes), object)
        array[:] = sizes
        given: list[Values | None] = [array]
    else:
        # Some exporters compute shapes in real numbers: exact, but for quotients.
        real = node.op_type in _EXACT
        given = [known.values(i, real) if i else None for i in node.input]
        if any(v is None for v, i in zip(given, node.input, strict=True) if i):
            return None
    try:
        return rule(attributes(node), given)
    except (ValueError, IndexError, TypeError, AttributeError, KeyError):
        return None  # malformed, or beyond what sizes can say: shape inference and onnxruntime judge it


def _check_contraction(known: Known, node: NodeProto) -> None:
    """A weight has no open axes: where one meets the batch, samples have been mixed."""
    if node.op_type not in ("MatMul", "Gemm"):
        return
    a, b = (known.sizes(i) for i in node.input[:2])
    if not a or not b:
        return
    settings = attributes(node)
    left = a[-2] if settings.get("transA") and len(a) > 1 else a[-1]
    right = b[-1] if settings.get("transB") or len(b) == 1 else b[-2]
    if left == right or (left.number is None) == (right.number is None):
        return
    mixed, fixed = (left, right) if left.number is None else (right, left)
    if BATCH in mixed.names:
        raise ModelError(
            f"node {node.name or node.output[0]!r} mixes the batch axis with others",
            value=str(mixed),
            limit=str(fixed),
            remedy="export with a batch axis that stays the first",
        )


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
