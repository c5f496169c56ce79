"""Turns a model of half, bfloat16 or double precision into one of float32, which is what trains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, TypeProto, numpy_helper

from laconic.training.source.tensors import array_of

_OTHER = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})

_TYPE_ATTRIBUTES = frozenset(
    {"to", "dtype", "output_datatype", "stash_type", "output_dtype", "softmax_precision"}
)
"""Attributes whose number is an element type."""


def to_float32(graph: GraphProto) -> None:
    """Rewrite `graph` and its subgraphs in place: values, declarations, casts."""
    for tensor in graph.initializer:
        _convert(tensor)
    for info in (*graph.input, *graph.output):
        _declare(info.type)
    del graph.value_info[:]
    for node in graph.node:
        _convert_attributes(node)


def _convert_attributes(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            _convert(attribute.t)
        elif attribute.name in _TYPE_ATTRIBUTES and attribute.i in _OTHER:
            attribute.i = TensorProto.FLOAT
        for body in _bodies(attribute):
            to_float32(body)


def _bodies(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.type == AttributeProto.GRAPH:
        yield attribute.g
    yield from attribute.graphs


def _convert(tensor: TensorProto) -> None:
    if tensor.data_type in _OTHER:
        # Numbers beyond float32, as masks of double models hold them, become infinite: that is their meaning.
        with np.errstate(over="ignore"):
            values = array_of(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _declare(kind: TypeProto) -> None:
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type in _OTHER:
        kind.tensor_type.elem_type = TensorProto.FLOAT
    elif kind.HasField("sequence_type"):
        _declare(kind.sequence_type.elem_type)
