"""Finds the weights among the tensors of a file.

Weights are lifted out before anything is folded: an optimizer that saw them as constants would merge and
transpose them, and the parameters would no longer be those of the source model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from laconic.training.source.tensors import constant_of

_EVERY = frozenset(range(64))

_SETTINGS: Mapping[str, frozenset[int]] = {
    "Resize": frozenset({1, 2, 3}),
    "Upsample": frozenset({1}),
    "Clip": frozenset({1, 2}),
    "Pad": frozenset({1, 2, 3}),
    "OneHot": frozenset({1, 2}),
    "Dropout": frozenset({1, 2}),
    "Pow": frozenset({1}),
    "CastLike": frozenset({1}),
    **dict.fromkeys(("Range", "NonMaxSuppression", "GridSample", "DFT", "STFT", "MelWeightMatrix"), _EVERY),
    **dict.fromkeys(("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"), _EVERY),
    **dict.fromkeys(("Shape", "Size", "ArgMax", "ArgMin", "IsNaN", "IsInf", "Sign"), _EVERY),
    **dict.fromkeys(("Floor", "Ceil", "Round", "Not", "ConstantOfShape", "EyeLike"), _EVERY),
}
"""Inputs that hold settings or are compared with: no gradient reaches them, or none should."""

_PASSING = frozenset(
    {"Identity", "Cast", "CastLike", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand"}
)
"""Through these, the use that counts is the one behind."""

_STATISTICAL = frozenset({"Sub", "Div"})
"""Raw data goes through these with the mean and the deviation of a data set."""

_FORMULA = re.compile(r"(?:.*/)?Constant(?:_\d+)?_output_0")
"""How PyTorch's TorchScript exporter calls the constants of a formula; parameters are initializers there."""

_FOLDED = re.compile(r"val_\d+")
"""How PyTorch's newer exporter calls what it has computed, from weights or from numbers."""

_PLAIN: Mapping[str, Mapping[int, float]] = {
    "BatchNormalization": {1: 1.0, 2: 0.0},
    "InstanceNormalization": {1: 1.0, 2: 0.0},
    "GroupNormalization": {1: 1.0, 2: 0.0},
    "LayerNormalization": {1: 1.0, 2: 0.0},
}
"""Scale and offset of a normalisation that has none of its own, which the operator must be given."""

_MASK = -1e4
"""What attention masks hold where nobody may look."""


def lifted(
    graph: GraphProto,
    initializers: Mapping[str, NDArray[Any]],
    inputs: Collection[str],
    *,
    prepared: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """The weights by name: initializers in their order, then Constant nodes in theirs.

    A weight is a float32 initializer with at least one axis, or a Constant node's with several elements;
    scalars are constants of a formula. It must be used where a gradient can reach it. No weights are masks
    (minus infinity, or thousands below zero), and what is subtracted from raw data or divides it: the
    statistics of a data set. In a pipeline that `prepared` its data so are factors and summands. Nor are
    numbers that PyTorch's exporters write themselves, where the file keeps its weights apart from them.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for name, array in initializers.items():
        if array.dtype == np.float32 and array.ndim >= 1:
            found[name] = array
    for node in graph.node:
        if node.op_type == "Constant" and not node.domain and node.output:
            array = constant_of(node)
            if array.dtype == np.float32 and array.ndim >= 1 and array.size > 1:
                found[node.output[0]] = array
    nodes = list(_every_node(graph))
    uses = _uses(nodes)
    found = {n: a for n, a in found.items() if not _is_exporters(n, a, uses)}
    if any(name in initializers for name in found):
        found = {n: a for n, a in found.items() if n in initializers or not _FORMULA.fullmatch(n)}
    raw = _raw(nodes, inputs, _STATISTICAL | {"Mul", "Add"} if prepared else _STATISTICAL)
    return {
        name: np.ascontiguousarray(array)
        for name, array in found.items()
        if array.size and not _is_mask(array) and _is_trained(name, uses, raw, 0, not array.any())
    }


def _every_node(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _every_node(attribute.g)


def _uses(nodes: Sequence[NodeProto]) -> dict[str, list[tuple[NodeProto, int]]]:
    uses: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
    for node in nodes:
        for i, name in enumerate(node.input):
            uses[name].append((node, i))
    return uses


def _raw(
    nodes: Sequence[NodeProto], inputs: Collection[str], statistical: Collection[str]
) -> dict[str, Collection[str]]:
    """Tensors that are data as it came in, however arranged, typed or normalised, each with the operators
    that may normalise it."""
    raw = set(inputs)
    for node in nodes:
        if (node.op_type in _PASSING or node.op_type in statistical) and node.input and node.input[0] in raw:
            raw.update(node.output)
    return dict.fromkeys(raw, statistical)


def _is_mask(array: NDArray[np.float32]) -> bool:
    return bool(np.isneginf(array).any() or (array.max() <= 0 and array.min() <= _MASK))


def _is_exporters(
    name: str, array: NDArray[np.float32], uses: Mapping[str, list[tuple[NodeProto, int]]]
) -> bool:
    """Whether a folded tensor can hold no weight: a lone number, or the scale of a plain normalisation."""
    if not _FOLDED.fullmatch(name):
        return False
    places = [(node.op_type, index) for node, index in uses.get(name, ())]
    if array.size == 1:
        return all(op_type in ("Mul", "Div") for op_type, _ in places)
    plain = [_PLAIN.get(op_type, {}).get(index) for op_type, index in places]
    return bool(plain) and all(value is not None and bool((array == value).all()) for value in plain)


def _is_trained(
    name: str,
    uses: Mapping[str, list[tuple[NodeProto, int]]],
    raw: Mapping[str, Collection[str]],
    depth: int,
    zero: bool,
) -> bool:
    for node, index in uses.get(name, ()):
        if index in _SETTINGS.get(node.op_type, ()) or (zero and _is_state(node, index)):
            continue
        if node.op_type in _PASSING and node.output and depth < 8:
            if index == 0 and _is_trained(node.output[0], uses, raw, depth + 1, zero):
                return True
            continue
        if _joined_to_settings(node, uses, raw, depth):
            continue
        if index == 1 and node.op_type in raw.get(node.input[0], ()):
            continue
        return True
    return False


def _joined_to_settings(
    node: NodeProto,
    uses: Mapping[str, list[tuple[NodeProto, int]]],
    raw: Mapping[str, Collection[str]],
    depth: int,
) -> bool:
    """Whether a Concat only puts settings together, as PyTorch does with the scales of a Resize."""
    if node.op_type != "Concat" or not uses.get(node.output[0]) or depth >= 8:
        return False
    return not _is_trained(node.output[0], uses, raw, depth + 1, zero=False)


def _is_state(node: NodeProto, index: int) -> bool:
    """Whether an input is the initial state of a recurrent layer: zeros there are nobody's parameter."""
    return node.op_type in ("RNN", "GRU", "LSTM") and index in (5, 6)
