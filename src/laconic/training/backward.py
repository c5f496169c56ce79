"""Reverse accumulation: from the gradient of a model's output to the gradients of its parameters.

Reverse mode as in Griewank & Walther, Evaluating Derivatives (SIAM, 2nd ed. 2008), chapter 3: nodes are
visited last to first, each rule turns the gradient of its outputs into gradients of its inputs, and what
reaches one tensor along several ways is summed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnx import NodeProto, TensorProto

from laconic.errors import UnsupportedOperator
from laconic.training.builder import GraphBuilder
from laconic.training.rules import RULES, Application, Rule

OPSET = 18


def gradients(
    graph: GraphBuilder,
    nodes: Sequence[NodeProto],
    seeds: Mapping[str, str],
    wanted: Collection[str],
    rules: Mapping[str, Rule] = RULES,
) -> dict[str, str]:
    """Append the backward pass of `nodes` to `graph`; the gradient tensor's name for each of `wanted`.

    `seeds` maps tensors to the gradients that arrive at them from the loss. A wanted tensor that does not
    influence a seed is missing from the result. Raises `UnsupportedOperator` for a node that lies between a
    wanted tensor and a seed and has no rule.
    """
    varying = _varying(graph, nodes, wanted)
    arrived: dict[str, list[str]] = {name: [gradient] for name, gradient in seeds.items()}
    for node in reversed(nodes):
        if not any(i in varying for i in node.input):
            continue
        dys = tuple(_total(graph, arrived, o) if o in varying else None for o in node.output)
        if all(dy is None for dy in dys):
            continue
        rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise unsupported(node, rules)
        application = Application(graph, node, tuple(i in varying for i in node.input))
        for name, gradient in zip(node.input, rule(application, dys), strict=True):
            if gradient is not None and name in varying:
                arrived.setdefault(name, []).append(gradient)
    totals = {name: _total(graph, arrived, name) for name in wanted}
    return {name: total for name, total in totals.items() if total is not None}


def unsupported(
    node: NodeProto, rules: Mapping[str, Rule] = RULES, opset: int = OPSET
) -> UnsupportedOperator:
    """The error for a node that cannot be trained through."""
    known = ", ".join(sorted(rules))
    return UnsupportedOperator(
        node.op_type,
        domain=node.domain,
        opset=opset,
        node=node.name or (node.output[0] if node.output else ""),
        remedy=f"freeze every weight before it, rewrite it with {known}, "
        "or add a rule (docs/add-an-operator.md)",
    )


def _varying(graph: GraphBuilder, nodes: Sequence[NodeProto], wanted: Collection[str]) -> set[str]:
    """Tensors that depend on a wanted one in a way that can be differentiated.

    Shapes, indices and truth values depend on weights, but no gradient flows through them.
    """
    varying = set(wanted)
    for node in nodes:
        if any(i in varying for i in node.input):
            for output in filter(None, node.output):
                known = graph.types.get(output)
                if known is None or known.dtype in (TensorProto.FLOAT, TensorProto.UNDEFINED):
                    varying.add(output)
    return varying


def _total(graph: GraphBuilder, arrived: dict[str, list[str]], name: str) -> str | None:
    """The sum of all gradients that arrived at `name`."""
    parts = arrived.get(name)
    if not parts:
        return None
    if len(parts) > 1:
        arrived[name] = parts = [graph.op("Sum", *parts)]
    return parts[0]
