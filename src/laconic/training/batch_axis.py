"""Makes the first axis of every data input a batch axis of any size.

Exported models often carry the batch size they were traced with, in input declarations and in the constant
targets of Reshape nodes. A device trains with another one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, numpy_helper, shape_inference
from onnx import helper as onnx_helper

from laconic.errors import ConfigError, ModelError
from laconic.training.builder import BATCH, Dim, Shape, TensorType
from laconic.training.modern import array_of


def free_batch_axis(
    model: ModelProto, weights: Mapping[str, NDArray[Any]], input_shapes: Mapping[str, Sequence[int]]
) -> None:
    """Rewrite `model` in place; `weights` are those already lifted, they become inputs here.

    `input_shapes` replaces the declared shape of one sample. Raises `ModelError` for a data input without
    axes, `ConfigError` for a shape that fits no input.
    """
    graph = model.graph
    data = [i for i in graph.input if i.name not in weights]
    del graph.input[:]
    graph.input.extend(data)
    for name, value in weights.items():
        graph.input.append(onnx_helper.make_tensor_value_info(name, 1, value.shape))
    used = {i for node in graph.node for i in node.input}
    inputs = [i for i in graph.input[: len(data)] if i.name in used]
    for declared in inputs:
        if not declared.type.tensor_type.shape.dim:
            raise ModelError(
                f"input {declared.name!r} has no axes", remedy="export with an input of shape (batch, ...)"
            )
    if unknown := sorted(set(input_shapes) - {i.name for i in inputs}):
        raise ConfigError("name in input_shapes", value=unknown[0], limit=[i.name for i in inputs])
    for declared in inputs:
        _fix_sample(declared, input_shapes.get(declared.name))
    _forget_shapes(graph)
    _free_reshapes(model, {i.name for i in inputs})
    for declared in inputs:
        declared.type.tensor_type.shape.dim[0].Clear()
        declared.type.tensor_type.shape.dim[0].dim_param = BATCH


def tensor_types(graph: GraphProto) -> dict[str, TensorType]:
    """What shape inference found out about the tensors of a graph."""
    types = {v.name: _tensor_type(v.type) for v in (*graph.value_info, *graph.input, *graph.output)}
    for initializer in graph.initializer:
        types[initializer.name] = TensorType(initializer.data_type, tuple(initializer.dims))
    return types


def _free_reshapes(model: ModelProto, inputs: Collection[str]) -> None:
    """Let Reshape copy the batch axis where its constant target repeats it."""
    graph = model.graph
    try:
        types = tensor_types(shape_inference.infer_shapes(model, data_prop=True).graph)
    except Exception as e:  # onnx raises its own InferenceError, ValueError or RuntimeError here
        raise ModelError("shapes of the model cannot be inferred", value=str(e)) from e
    constants = {i.name: array_of(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = array_of(node.attribute[0].t)
        elif node.op_type == "Constant" and node.attribute[0].name == "value_ints":
            constants[node.output[0]] = np.array(node.attribute[0].ints, np.int64)
    flowing = set(inputs)
    for node in graph.node:
        if not any(i in flowing for i in node.input):
            continue
        flowing.update(node.output)
        if node.op_type == "Reshape" and node.input[1] in constants and node.input[0] in types:
            shape = types[node.input[0]].shape
            target = _freed(node, shape, constants[node.input[1]])
            if target is not None:
                name = f"{node.output[0]}/target"
                graph.initializer.append(numpy_helper.from_array(target, name))
                node.input[1] = name


def _freed(node: NodeProto, shape: Shape | None, target: NDArray[Any]) -> NDArray[Any] | None:
    """The Reshape's target with its first axis copied, or None when that would change its meaning."""
    if shape is None or len(shape) < 1 or target.ndim != 1 or len(target) < 1:
        return None
    if any(a.name == "allowzero" and a.i for a in node.attribute):
        return None
    first, rest = int(target[0]), [int(d) for d in target[1:]]
    # A zero copies the input's axis at its position: say it in numbers before moving anything.
    named: list[Dim] = [shape[i] if d == 0 and i < len(shape) else d for i, d in enumerate(rest, start=1)]
    if any(not isinstance(d, int) for d in (*named, *shape[1:])):
        return None
    sizes = [d for d in named if isinstance(d, int)]
    sample = math.prod(d for d in shape[1:] if isinstance(d, int))
    if -1 in sizes:
        known = math.prod(d for d in sizes if d != -1)
        if first == -1 or known == 0 or sample % known:
            return None
        sizes[sizes.index(-1)] = sample // known
    if first not in (0, -1, shape[0]) or math.prod(sizes) != sample:
        return None
    return np.array([0, *sizes], np.int64)


def _fix_sample(declared: ValueInfoProto, sample: Sequence[int] | None) -> None:
    dims = declared.type.tensor_type.shape.dim
    if sample is None:
        return
    fits = len(sample) == len(dims) - 1 and all(
        size > 0 and (not d.HasField("dim_value") or d.dim_value == size)
        for size, d in zip(sample, list(dims)[1:], strict=True)
    )
    if not fits:
        declared_as = [d.dim_value or d.dim_param or "?" for d in list(dims)[1:]]
        raise ConfigError(f"shape of input {declared.name!r}", value=tuple(sample), limit=declared_as)
    for size, dim in zip(sample, list(dims)[1:], strict=True):
        dim.dim_value = size


def _forget_shapes(graph: GraphProto) -> None:
    """Drop recorded shapes of results: they repeat the traced batch size."""
    del graph.value_info[:]
    for output in graph.output:
        if isinstance(output, ValueInfoProto):
            output.type.tensor_type.ClearField("shape")


def _tensor_type(proto: TypeProto) -> TensorType:
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type, None)
    dims = tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in tensor.shape.dim)
    return TensorType(tensor.elem_type, dims)
