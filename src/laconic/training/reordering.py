"""Puts cheap operators where tensors are smaller, without a change of the model's values or gradients.

max(relu(x)) is relu(max(x)), so a Relu before a maximum over windows may as well come after it, where there
are fewer elements: forward and backward, two passes over the large tensor are spared. The gradient is the
same too: where a window has nothing positive none passes either way, and where it has, the first of its
largest elements is the same one. (Not so for Clip, through which a gradient passes at its bounds.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnx import NodeProto

from laconic.training.algebra import Window
from laconic.training.builder import TensorType

_MAXIMA = frozenset({"GlobalMaxPool", "MaxPool"})


def pooled_first(
    nodes: Sequence[NodeProto], types: Mapping[str, TensorType], kept: Collection[str]
) -> tuple[list[NodeProto], dict[str, TensorType]]:
    """The nodes with every Relu whose only use is a maximum over windows behind that maximum.

    `kept` are tensors that must stay, such as the graph's outputs. Also the types that have changed: the
    tensor between the two keeps its name, but has the shape of the result.
    """
    window = Window(nodes, {})
    placed: dict[int, tuple[NodeProto, ...]] = {}
    changed: dict[str, TensorType] = {}
    for i, pool in enumerate(nodes):
        if pool.op_type not in _MAXIMA or not _standard(pool) or any(pool.output[1:]):
            continue
        middle, result = str(pool.input[0]), str(pool.output[0])
        relu = window.maker(middle, "Relu")
        alone = window.users[middle] == [i] and middle not in kept
        if relu is None or not _standard(relu) or not alone or result not in types:
            continue
        first, then = NodeProto(), NodeProto()
        first.CopyFrom(pool)
        then.CopyFrom(relu)
        first.input[0], first.output[0] = relu.input[0], middle
        then.input[0], then.output[0] = middle, result
        placed[window.makers[middle]], placed[i] = (), (first, then)
        changed[middle] = types[result]
    return [n for i, node in enumerate(nodes) for n in placed.get(i, (node,))], changed


def _standard(node: NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")
