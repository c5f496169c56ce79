"""A source model in another precision: float64, where rounding must not hide a wrong formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from laconic.training.builder import TensorType
from laconic.training.source import Source


def widened(source: Source, real: int) -> tuple[dict[str, TensorType], Mapping[str, NDArray[Any]]]:
    """Types and constants of `source` with `real` in place of float32."""
    dtype = helper.tensor_dtype_to_np_dtype(real)
    types = {
        n: TensorType(real if t.dtype == TensorProto.FLOAT else t.dtype, t.shape)
        for n, t in source.types.items()
    }
    constants = {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in source.constants.items()}
    # ONNX asks for these in float32 whatever the data are.
    scales = {n for node in source.nodes if node.op_type == "Resize" for n in node.input[1:3]}
    constants.update({n: source.constants[n] for n in scales if n in source.constants})
    return types, constants


def widened_nodes(nodes: Sequence[NodeProto], real: int) -> list[NodeProto]:
    """`nodes` with casts and constants of float32 turned to `real`."""
    return [_widened(node, real) for node in nodes] if real != TensorProto.FLOAT else list(nodes)


def _widened(node: NodeProto, real: int) -> NodeProto:
    out = NodeProto()
    out.CopyFrom(node)
    if node.op_type == "ConstantOfShape" and not node.attribute:
        zero = np.zeros(1, helper.tensor_dtype_to_np_dtype(real))
        out.attribute.append(helper.make_attribute("value", numpy_helper.from_array(zero)))
    for attribute in out.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
            attribute.i = real
        elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(attribute.t).astype(helper.tensor_dtype_to_np_dtype(real))
            attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
    return out
