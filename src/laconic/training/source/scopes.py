"""Gives tensors other names wherever a node speaks of them, in its branches too."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import AttributeProto, NodeProto


def rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename in place. A branch reads tensors from around it, and none of its own bears a name of theirs."""
    for listed in (node.input, node.output):
        listed[:] = [names.get(n, n) for n in listed]
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                rename(inner, names)
            for result in attribute.g.output:
                result.name = names.get(result.name, result.name)
