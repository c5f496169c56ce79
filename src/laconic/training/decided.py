"""Puts the branch that is taken in the place of every If whose condition follows from known shapes.

A step decides by the size of its batch how it computes some layers; with a batch of known size there is
nothing left to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from laconic.training.builder import TensorType
from laconic.training.inferred import tensor_types


def decide(graph: GraphProto) -> bool:
    """Replace in place; whether there was anything to replace. Names are unique across branches, as
    `GraphBuilder.either` makes them."""
    types = tensor_types(graph)
    makers = {o: node for node in graph.node for o in node.output if o}
    constants = {i.name: i for i in graph.initializer if i.data_location != TensorProto.EXTERNAL}
    nodes: list[NodeProto] = []
    decided = False
    for node in graph.node:
        condition = _value(node.input[0], types, makers, constants) if node.op_type == "If" else None
        if condition is None:
            nodes.append(node)
            continue
        taken = next(a.g for a in node.attribute if a.name == ("then_branch" if condition else "else_branch"))
        decided = True
        nodes.extend(taken.node)
        for inner, outer in zip(taken.output, node.output, strict=True):
            nodes.append(helper.make_node("Identity", [inner.name], [outer]))
    if not decided:
        return False
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return True


def _value(
    name: str,
    types: Mapping[str, TensorType],
    makers: Mapping[str, NodeProto],
    constants: Mapping[str, TensorProto],
) -> NDArray[Any] | None:
    """The value of what is computed from shapes and constants alone, else None."""
    if name in constants:
        return np.asarray(numpy_helper.to_array(constants[name]))
    node = makers.get(name)
    if node is None:
        return None
    if node.op_type == "Shape":
        known = types.get(node.input[0])
        if known is None or known.shape is None or not all(isinstance(d, int) for d in known.shape):
            return None
        start, end = (next((a.i for a in node.attribute if a.name == n), None) for n in ("start", "end"))
        return np.array(known.shape, np.int64)[start:end]
    inputs = {i: _value(i, types, makers, constants) for i in node.input if i}
    if any(v is None for v in inputs.values()):
        return None
    results: Any = ReferenceEvaluator(node).run([name], inputs)
    return np.asarray(results[0])
