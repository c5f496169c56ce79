"""Gives weights whose names an exporter made up the names that their author knows them by.

PyTorch's exporters transpose the weights of dense layers and call them `onnx::MatMul_139` or `val_82`,
another number with every export. The module that they belong to stands in the names around them: in that of
the node, `/layers/layers.0/query/MatMul`, or in that of the bias that is added next, `layers.0.query.bias`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from onnx import GraphProto, NodeProto

_MADE_UP = re.compile(r"onnx::\w+_\d+|val_\d+")

_SUFFIXES: Mapping[tuple[str, int], str] = {
    ("LSTM", 1): "W",
    ("LSTM", 2): "R",
    ("LSTM", 3): "B",
    ("GRU", 1): "W",
    ("GRU", 2): "R",
    ("GRU", 3): "B",
    ("RNN", 1): "W",
    ("RNN", 2): "R",
    ("RNN", 3): "B",
    ("Conv", 2): "bias",
    ("ConvTranspose", 2): "bias",
    ("Gemm", 2): "bias",
}
"""By operator and position; what is not here is a `weight`."""


def authors_names(graph: GraphProto, initializers: Collection[str]) -> dict[str, str]:
    """For each initializer with a made-up name, the name to use instead, if one can be told.

    No two get the same, and none gets a name that the graph uses already.
    """
    taken = {n for node in graph.node for n in (*node.input, *node.output)} | set(initializers)
    followers = {i: node for node in graph.node for i in node.input}
    found: dict[str, str] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name not in initializers or name in found or not _MADE_UP.fullmatch(name):
                continue
            stem = _bias_stem(node, followers, initializers) or _scope(node)
            wanted = f"{stem}.{_SUFFIXES.get((node.op_type, position), 'weight')}"
            if stem and wanted not in taken:
                taken.add(wanted)
                found[name] = wanted
    return found


def _bias_stem(node: NodeProto, followers: Mapping[str, NodeProto], initializers: Collection[str]) -> str:
    """`layers.0.query` where `layers.0.query.bias` is added to what `node` makes."""
    follower = followers.get(node.output[0])
    if node.op_type != "MatMul" or follower is None or follower.op_type != "Add":
        return ""
    biases = [i for i in follower.input if i in initializers and i.endswith(".bias")]
    return biases[0].removesuffix(".bias") if biases else ""


def _scope(node: NodeProto) -> str:
    """`layers.0.query` from `/layers/layers.0/query/MatMul`: a part that goes on from the one before, as in
    `layers` and `layers.0`, stands in its place."""
    parts: list[str] = []
    for part in node.name.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)
