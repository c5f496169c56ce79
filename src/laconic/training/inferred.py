"""Types of tensors as onnx's own shape inference finds them."""

from __future__ import annotations

from onnx import GraphProto, TypeProto

from laconic.training.builder import TensorType


def tensor_types(graph: GraphProto) -> dict[str, TensorType]:
    """What shape inference found out about the tensors of a graph; an axis that it does not know is "?"."""
    types = {v.name: _tensor_type(v.type) for v in (*graph.value_info, *graph.input, *graph.output)}
    for initializer in graph.initializer:
        types[initializer.name] = TensorType(initializer.data_type, tuple(initializer.dims))
    return types


def _tensor_type(proto: TypeProto) -> TensorType:
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type, None)
    dims = tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in tensor.shape.dim)
    return TensorType(tensor.elem_type, dims)
