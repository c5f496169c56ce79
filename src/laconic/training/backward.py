"""Reverse accumulation: from the gradient of a model's output to the gradients of its parameters.

Reverse mode as in Griewank & Walther, Evaluating Derivatives (SIAM, 2nd ed. 2008), chapter 3: nodes are
visited last to first, each rule turns the gradient of its outputs into gradients of its inputs, and what
reaches one tensor along several ways is summed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnx import AttributeProto, NodeProto, TensorProto

from laconic.errors import UnsupportedOperator
from laconic.training.assemble import OPSET, live_nodes
from laconic.training.builder import GraphBuilder
from laconic.training.rules import RULES, Application, Rule, Saved, key

STANDARD_DOMAINS = ("", "ai.onnx")
"""Two spellings of the domain of the ONNX standard itself."""


_REAL = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.UNDEFINED)


def gradients(
    graph: GraphBuilder,
    nodes: Sequence[NodeProto],
    seeds: Mapping[str, str],
    wanted: Collection[str],
    saved: Mapping[str, Saved] | None = None,
    rules: Mapping[str, Rule] = RULES,
) -> dict[str, str]:
    """Append the backward pass of `nodes` to `graph`; the gradient tensor's name for each of `wanted`.

    `nodes` are those of the source model, `saved` is what their forms left (`laconic.training.forward`).
    `seeds` maps tensors to the gradients that arrive at them from the loss. A wanted tensor that does not
    influence a seed is missing from the result. Raises `UnsupportedOperator` for a node that lies between a
    wanted tensor and a seed and has no rule.
    """
    moving = varying(graph, nodes, wanted)
    arrived: dict[str, list[str]] = {name: [gradient] for name, gradient in seeds.items()}
    for node in reversed(nodes):
        if not any(i in moving for i in node.input):
            continue
        dys = tuple(_total(graph, arrived, o) if o in moving else None for o in node.output)
        if all(dy is None for dy in dys):
            continue
        rule = _rule(node, rules)
        if rule is None:
            raise unsupported(node)
        left = (saved or {}).get(key(node), {})
        application = Application(graph, node, tuple(i in moving for i in node.input), left)
        for name, gradient in zip(node.input, rule(application, dys), strict=True):
            if gradient is not None and name in moving:
                arrived.setdefault(name, []).append(gradient)
                if name in graph.types:
                    graph.types.setdefault(gradient, graph.types[name])
    totals = {name: _total(graph, arrived, name) for name in wanted}
    return {name: total for name, total in totals.items() if total is not None}


def require_rules(
    graph: GraphBuilder,
    nodes: Sequence[NodeProto],
    wanted: Collection[str],
    target: str,
    rules: Mapping[str, Rule] = RULES,
) -> None:
    """Raise `UnsupportedOperator` for the first node without a rule between a wanted tensor and `target`.

    The same refusal as in `gradients`, but before anything else about the model is looked at.
    """
    moving = varying(graph, nodes, wanted)
    for node in live_nodes(nodes, [target]):
        carries = any(o in moving for o in node.output) and any(i in moving for i in node.input)
        if carries and _rule(node, rules) is None:
            raise unsupported(node)


def unsupported(node: NodeProto, opset: int = OPSET) -> UnsupportedOperator:
    """The error for a node that cannot be trained through."""
    if node.domain not in STANDARD_DOMAINS:
        remedy = "export the model with operators of the standard ONNX domain only"
    elif any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
        remedy = "export the model without branches and loops"
    else:
        remedy = "freeze every weight before it, or add a rule (docs/add-an-operator.md)"
    name = node.name or next(filter(None, node.output), "")
    return UnsupportedOperator(node.op_type, domain=node.domain, opset=opset, node=name, remedy=remedy)


def _rule(node: NodeProto, rules: Mapping[str, Rule]) -> Rule | None:
    return rules.get(node.op_type) if node.domain in STANDARD_DOMAINS else None


def varying(graph: GraphBuilder, nodes: Sequence[NodeProto], wanted: Collection[str]) -> set[str]:
    """Tensors that depend on a wanted one in a way that can be differentiated.

    Shapes, indices and truth values depend on weights, but no gradient flows through them.
    """
    moving = set(wanted)
    for node in nodes:
        if any(i in moving for i in node.input):
            for output in filter(None, node.output):
                known = graph.types.get(output)
                if known is None or known.dtype in _REAL:
                    moving.add(output)
    return moving


def _total(graph: GraphBuilder, arrived: dict[str, list[str]], name: str) -> str | None:
    """The sum of all gradients that arrived at `name`."""
    parts = arrived.get(name)
    if not parts:
        return None
    if len(parts) > 1:
        total = graph.op("Add" if len(parts) == 2 else "Sum", *parts)
        if name in graph.types:
            graph.types[total] = graph.types[name]
        arrived[name] = parts = [total]
    return parts[0]
