"""Sequences of tensors, as exporters use them for Split: taken apart, since a gradient needs no container."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import NodeProto

from laconic.training.backward import unsupported
from laconic.training.source.reading import Reading
from laconic.training.source.tensors import attributes


def read(r: Reading, node: NodeProto) -> bool:
    """Take in an operator on sequences of known length; False for all other operators."""
    operator = _OPERATORS.get(node.op_type)
    if operator is None:
        return False
    operator(r, node)
    return True


def _items(r: Reading, node: NodeProto) -> Sequence[str]:
    items = r.sequence(node.input[0])
    if items is None:
        raise unsupported(node)
    return items


def _construct(r: Reading, node: NodeProto) -> None:
    r.enter_sequence(node.output[0], list(node.input))


def _empty(r: Reading, node: NodeProto) -> None:
    r.enter_sequence(node.output[0], [])


def _position(r: Reading, node: NodeProto, index: int, length: int) -> int:
    value = r.value(node.input[index])
    if value is None or value.size != 1 or not -length <= int(value.reshape(())) <= length:
        raise unsupported(node)
    position = int(value.reshape(()))
    return position + length if position < 0 else position


def _at(r: Reading, node: NodeProto) -> None:
    items = _items(r, node)
    position = _position(r, node, 1, len(items))
    if position >= len(items):
        raise unsupported(node)
    r.alias(node.output[0], items[position])


def _insert(r: Reading, node: NodeProto) -> None:
    items = list(_items(r, node))
    at = _position(r, node, 2, len(items)) if len(node.input) > 2 and node.input[2] else len(items)
    r.enter_sequence(node.output[0], [*items[:at], node.input[1], *items[at:]])


def _length(r: Reading, node: NodeProto) -> None:
    r.constant(len(_items(r, node)), np.int64, name=node.output[0])


def _concat(r: Reading, node: NodeProto) -> None:
    items, settings = _items(r, node), attributes(node)
    axis = settings["axis"]
    if settings.get("new_axis"):
        items = [r.op("Unsqueeze", i, r.ints(axis)) for i in items]
    r.op("Concat", *items, outputs=list(node.output), axis=axis)


def _split(r: Reading, node: NodeProto) -> None:
    settings = attributes(node)
    axis, x = settings.get("axis", 0), node.input[0]
    size = r.shape(x)[axis]
    if not isinstance(size, int):
        raise unsupported(node)
    given = len(node.input) > 1 and bool(node.input[1])
    split = r.value(node.input[1]) if given else np.array(1)
    if split is None:
        raise unsupported(node)
    if split.ndim:
        sizes = [int(s) for s in split]
    else:
        each = int(split)
        if each < 1:
            raise unsupported(node)
        sizes = [each] * (size // each) + ([size % each] if size % each else [])
    pieces = [r.fresh(f"{node.output[0]}/{i}") for i in range(len(sizes))]
    r.op("Split", x, r.ints(*sizes), outputs=pieces, axis=axis)
    if not given and not settings.get("keepdims", 1):
        pieces = [r.op("Squeeze", p, r.ints(axis)) for p in pieces]
    r.enter_sequence(node.output[0], [r.now(p) for p in pieces])


_OPERATORS: Mapping[str, Callable[[Reading, NodeProto], None]] = {
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceAt": _at,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "ConcatFromSequence": _concat,
    "SplitToSequence": _split,
}
