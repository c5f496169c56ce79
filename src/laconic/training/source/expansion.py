"""Writes an operator out as the function body that the ONNX standard gives for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto, defs, helper

from laconic.errors import UnsupportedOperator
from laconic.training.assemble import OPSET
from laconic.training.backward import unsupported
from laconic.training.source.reading import Reading
from laconic.training.source.scopes import rename


def expanded(r: Reading, node: NodeProto, version: int) -> bool:
    """Read the nodes of the operator's function body instead; False if the standard gives none."""
    body = _body(r, node, version)
    if body is None:
        return False
    versions = {o.domain: o.version for o in body.opset_import}
    inside = versions.get("", version)
    names = dict(zip(body.input, node.input, strict=False))
    names.update({name: "" for name in body.input if name not in names})
    names.update({inner: outer for inner, outer in zip(body.output, node.output, strict=False) if outer})
    given = {a.name: a for a in node.attribute}
    schema = defs.get_schema(node.op_type, min(max(version, OPSET), defs.onnx_opset_version()))
    defaults = [a.default_value for a in schema.attributes.values() if a.default_value.name]
    for default in (*body.attribute_proto, *defaults):
        given.setdefault(default.name, default)
    names[""] = ""
    for inner in body.node:
        for name in inner.output:
            if name not in names:
                names[name] = r.fresh(f"{node.output[0]}/{name}")
    for inner in body.node:
        copy = NodeProto()
        copy.CopyFrom(inner)
        copy.name = ""
        rename(copy, names)
        _bind(copy, given)
        try:
            r.read(copy, inside)
        except UnsupportedOperator as e:
            # The file says nothing of what a body is made of.
            raise unsupported(node, opset=version) from e
    return True


def _bind(node: NodeProto, given: Mapping[str, AttributeProto]) -> None:
    """Put the caller's attributes where the body refers to them; those that it leaves out are dropped."""
    written = list(node.attribute)
    del node.attribute[:]
    for attribute in written:
        if not attribute.ref_attr_name:
            for inner in attribute.g.node:
                _bind(inner, given)
            node.attribute.append(attribute)
        elif attribute.ref_attr_name in given:
            bound = node.attribute.add()
            bound.CopyFrom(given[attribute.ref_attr_name])
            bound.name = attribute.name


def has_inference(node: NodeProto) -> bool:
    """Whether onnx can say the types of what the node makes."""
    schema: Any = defs.get_schema(node.op_type, OPSET)
    return bool(schema.has_type_and_shape_inference_function)


def _body(r: Reading, node: NodeProto, version: int) -> FunctionProto | None:
    version = max(version, OPSET)
    try:
        schema: Any = defs.get_schema(node.op_type, min(version, defs.onnx_opset_version()))
    except defs.SchemaError:
        return None
    fitting = [v for v in schema.function_opset_versions if v <= version]
    if fitting:
        return _parsed(schema.get_function_with_opset_version(_best(fitting)))
    fitting = [v for v in schema.context_dependent_function_opset_versions if v <= version]
    if not fitting:
        return None
    types = []
    for name in node.input:
        kind = r.types.get(name)
        made = helper.make_tensor_type_proto(kind.dtype, kind.shape) if kind else TypeProto()
        types.append(made.SerializeToString())
    encoded = schema.get_context_dependent_function_with_opset_version(
        _best(fitting), node.SerializeToString(), types
    )
    return _parsed(encoded) if encoded else None


def _parsed(encoded: bytes) -> FunctionProto:
    body = FunctionProto()
    body.ParseFromString(encoded)
    return body


def _best(versions: list[int]) -> int:
    """The newest body that opset 18 can say, else the oldest there is."""
    sayable = [v for v in versions if v <= OPSET]
    return max(sayable) if sayable else min(versions)
