"""Values and types of a foreign file's tensors, as arrays and `TensorType`s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from laconic.errors import ModelError

LARGEST = 2**31
"""The most bytes of one tensor: protobuf ends there as well."""


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """A tensor's value; raises `ModelError` when its bytes do not fit its type and shape or lie elsewhere."""
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError(f"tensor {tensor.name!r} lies in another file")  # which onnx would read
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception as e:  # KeyError, TypeError or ValueError, by what is wrong
        raise ModelError(f"value of tensor {tensor.name!r}", value=str(e)) from e


def text(value: Any) -> str:
    """A string as a file holds it, which may be bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name, text as str."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = text(value) if isinstance(value, bytes) else value
    return found


def constant_of(node: NodeProto) -> NDArray[Any]:
    """What a Constant node holds."""
    if len(node.attribute) != 1:
        raise ModelError(f"Constant node {node.name!r} has {len(node.attribute)} values", limit=1)
    (attribute,) = node.attribute
    if attribute.name == "value":
        return array_of(attribute.t)
    if attribute.name in _CONSTANTS:
        return np.array(helper.get_attribute_value(attribute), _CONSTANTS[attribute.name])
    raise ModelError(f"Constant node {node.name!r} holds a {attribute.name}", remedy="export dense constants")


_CONSTANTS: Mapping[str, Any] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": object,
    "value_strings": object,
}
