"""Which part of a training step has to be done step by step: the rest is done for many steps at once.

What depends on the data alone (the one-hot form of labels) can be had before the first step, and what no
weight depends on (the loss, once its gradient is there) can wait until after the last one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, TypeAlias

from onnx import NodeProto

Phase: TypeAlias = Literal["outer", "ahead", "body", "behind"]
"""outer: once, the same for all steps; ahead, behind: for all steps together, before the loop and after it;
body: in the loop."""

SHAPES = frozenset({"Shape", "Size"})
"""Operators whose result is the same for all devices."""

_Kind: TypeAlias = Literal["same", "own", "data", "weight", "made", "inner"]
"""Of a tensor: the same for all devices; one for each device; one for each device and step, made of data; of
the state; made of the state; or the same for all devices, but known in the loop alone."""


def phases(
    nodes: Sequence[NodeProto],
    data: Collection[str],
    state: Collection[str],
    settings: Collection[str],
    sized: Collection[str],
) -> list[Phase]:
    """The phase of each of a step's nodes; its results are the tensors of `state` with `:new`, and `loss`.

    `sized` are tensors of whose size the data's tell.
    """
    kinds: dict[str, _Kind] = dict.fromkeys(settings, "own")
    kinds.update(dict.fromkeys(data, "data"))
    kinds.update(dict.fromkeys(state, "weight"))
    found: list[Phase] = []
    for node in nodes:
        first = next(iter(node.input), "")
        known = first in data or (node.op_type == "Size" and first in sized)
        phase, kind = _early(node, {kinds.get(i, "same") for i in node.input if i}, known)
        found.append(phase)
        kinds.update(dict.fromkeys(node.output, kind))
    due = {f"{n}:new" for n in state}
    for i in reversed(range(len(nodes))):
        node = nodes[i]
        waits = {kinds.get(n, "same") for n in node.input if n} <= {"same", "data", "made"}
        if found[i] == "body" and waits and due.isdisjoint(node.output):
            found[i] = "behind"
        else:
            due.update(node.input)
    return found


def _early(node: NodeProto, read: set[_Kind], known: bool) -> tuple[Phase, _Kind]:
    """Where a node is computed as early as can be, and of what kind its results are."""
    shape = node.op_type in SHAPES
    if read <= {"same", "own"} or (shape and known):
        # The data of all steps have the same shape: what depends on that alone is done once.
        return "outer", "own" if "own" in read and not shape else "same"
    if read <= {"same", "data"} and not shape:
        return "ahead", "data"
    return "body", "inner" if shape or read <= {"same", "inner"} else "made"
