"""Brings any ONNX file to opset 18 with nothing but standard operators at the top level."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    ModelProto,
    NodeProto,
    TensorProto,
    checker,
    defs,
    inliner,
    numpy_helper,
    version_converter,
)

from laconic.errors import ModelError
from laconic.training.assemble import IR_VERSION, OPSET
from laconic.training.backward import STANDARD_DOMAINS, unsupported


def modernised(data: bytes) -> tuple[ModelProto, list[str]]:
    """The model at opset 18, and the names of its initializers in the source's order.

    Raises `ModelError` for bytes that are no model, that point to other files, or that cannot be converted,
    and `UnsupportedOperator` for operators outside the standard domain or with subgraphs.
    """
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as e:  # protobuf's implementations raise different types
        raise ModelError("the file is not an ONNX model", value=str(e)) from e
    if not model.graph.node:
        raise ModelError("the file is not an ONNX model", value="no nodes")
    if model.functions:
        model = inliner.inline_local_functions(model)
    versions = {o.domain: o.version for o in model.opset_import}
    version = max((versions[d] for d in STANDARD_DOMAINS if d in versions), default=0)
    for node in model.graph.node:
        if node.domain not in STANDARD_DOMAINS:
            raise unsupported(node, opset=versions.get(node.domain, 0))
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise unsupported(node, opset=version)
    if version < 1:
        raise ModelError("the model names no opset of the standard domain")
    _refuse_external_data(model)
    _check(model)
    order = [i.name for i in model.graph.initializer]
    for node in model.graph.node:
        node.domain = ""
    del model.opset_import[:]
    model.opset_import.add(domain="", version=version)
    model.ir_version = IR_VERSION
    return _at_opset(model, version), order


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """A tensor's value; raises `ModelError` when its bytes do not fit its type and shape."""
    try:
        return numpy_helper.to_array(tensor)
    except Exception as e:  # KeyError, TypeError or ValueError, by what is wrong
        raise ModelError(f"value of tensor {tensor.name!r}", value=str(e)) from e


def _check(model: ModelProto) -> None:
    """onnx's own check of structure, which asks for one thing too much: shapes of outputs."""
    bare = [o.type.tensor_type for o in model.graph.output if not o.type.tensor_type.HasField("shape")]
    for output in bare:
        output.shape.SetInParent()
    try:
        checker.check_model(model)
    except Exception as e:  # onnx raises its own ValidationError, ValueError or TypeError here
        raise ModelError("the file is not a valid ONNX model", value=str(e)) from e
    for output in bare:
        output.ClearField("shape")


def _refuse_external_data(model: ModelProto) -> None:
    tensors = list(model.graph.initializer)
    tensors += [a.t for node in model.graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"tensor {tensor.name!r} lies in another file",
                remedy="save the model as one file (onnx.save with save_as_external_data=False)",
            )
    if model.graph.sparse_initializer:
        raise ModelError("sparse initializers cannot be trained", remedy="export dense weights")


def _at_opset(model: ModelProto, version: int) -> ModelProto:
    if version == OPSET:
        return model
    if version > OPSET and all(_same_since(node, version) for node in model.graph.node):
        model.opset_import[0].version = OPSET
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as e:  # the converter raises RuntimeError or ValueError
        raise ModelError(
            f"opset {version} cannot be converted to {OPSET}", value=str(e), remedy=f"export at opset {OPSET}"
        ) from e


def _same_since(node: NodeProto, version: int) -> bool:
    """Whether the node's attributes mean the same at opset 18 as at `version`.

    Later versions of most operators only add element types and attributes: the node is safe when opset 18
    knows all attributes that it uses.
    """
    if node.op_type in _REDEFINED or not defs.has(node.op_type):
        return False
    try:
        then = defs.get_schema(node.op_type, OPSET)
    except defs.SchemaError:
        return False
    return all(a.name in then.attributes for a in node.attribute) and len(node.input) <= then.max_input


_REDEFINED = frozenset({"BatchNormalization", "GroupNormalization", "DFT", "AveragePool"})
"""Operators that kept their attributes and changed their meaning, or gained inputs, after opset 18."""
