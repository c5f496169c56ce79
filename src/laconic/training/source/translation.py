"""Decides by what a node of a foreign file is translated: domain, opset, batch axis, function body."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import AttributeProto, NodeProto

from laconic.training.assemble import OPSET
from laconic.training.backward import unsupported
from laconic.training.rules import FORMS, RULES
from laconic.training.source import branches, classical, microsoft, sequences
from laconic.training.source.batch_axis import freed
from laconic.training.source.expansion import expanded, has_inference
from laconic.training.source.normal_form import normalised
from laconic.training.source.reading import Reading, Translate
from laconic.training.source.upgrade import taken_over, upgraded, without_defaults


def translator(versions: Mapping[str, int]) -> Translate:
    """The translation of a file whose domains have these opsets."""

    def translate(r: Reading, node: NodeProto, version: int) -> bool:
        domain = node.domain
        if domain:
            tables = {"ai.onnx.ml": classical.OPERATORS, "com.microsoft": microsoft.OPERATORS}
            write = tables.get(domain, {}).get(node.op_type)
            if write is None:
                raise (
                    classical.refusal(node, versions.get(domain, 0))
                    if domain == "ai.onnx.ml"
                    else unsupported(node, opset=versions.get(domain, 0))
                )
            write(r, node)
            return True
        if branches.taken(r, node, version) or sequences.read(r, node):
            return True
        if upgraded(r, node, version) or normalised(r, node):
            return True
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise unsupported(node, opset=version)
        if not taken_over(node, version):
            if expanded(r, node, version):
                return True
            raise unsupported(node, opset=version)
        plain = without_defaults(node, version)
        if plain is not node:
            r.read(plain, OPSET)
            return True
        if freed(r, node):
            return True
        unruled = node.op_type not in RULES and node.op_type not in FORMS
        # What stays must have its types inferred: onnx cannot say those of some functions.
        wanted = any(i in r.varying for i in node.input) or not has_inference(node)
        return unruled and wanted and expanded(r, node, OPSET)

    return translate
