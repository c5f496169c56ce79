"""Finds the logits: what a loss is put on when a model ends in probabilities or in labels.

A classifier's file ends in a Softmax, a Sigmoid, an ArgMax, a table of class names, or several of them. A
loss contains the last activation itself, because its gradient is exact and simple only in that way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from laconic.training.builder import TensorType
from laconic.training.source.reading import Reading
from laconic.training.source.tensors import attributes, text

_ACTIVATIONS = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})

_ARRANGING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})

_LEAST = 1e-30
"""A probability of zero counts as this one before its logarithm is taken."""


def prediction(
    nodes: Sequence[NodeProto],
    types: Mapping[str, TensorType],
    constants: Mapping[str, NDArray[Any]],
    output: str,
    absorbs: Collection[str],
) -> str:
    """The tensor that a loss on `output` works on, if the loss contains the activations in `absorbs`.

    For labels it is the scores that they were chosen from, for probabilities the logits; the output itself
    where nothing is to be absorbed. Of the columns (1 - p, p) of several labels p alone is predicted.
    """
    made = {o: node for node in nodes for o in node.output}
    tensor = _scores(made, types, constants, output) or output
    tensor = _named(made, tensor)
    tensor = _complemented(made, types, constants, tensor) or tensor
    node = made.get(tensor)
    if node is None or not node.input:
        return tensor
    logits = _named(made, node.input[0])
    if node.op_type == "Softmax" and "Sigmoid" in absorbs and "Softmax" not in absorbs:
        two = made.get(logits)
        if two is not None and two.op_type == "MatMul" and _is_two_classes(constants.get(two.input[1])):
            return str(two.input[0])
    if node.op_type not in absorbs:
        return tensor
    shape = types[tensor].shape
    axis = attributes(node).get("axis", -1)
    last = node.op_type == "Sigmoid" or axis == -1 or (shape is not None and axis == len(shape) - 1)
    return logits if last else tensor


def _named(made: Mapping[str, NodeProto], tensor: str) -> str:
    """The tensor behind copies of it."""
    while tensor in made and made[tensor].op_type == "Identity":
        tensor = made[tensor].input[0]
    return tensor


def _scores(
    made: Mapping[str, NodeProto],
    types: Mapping[str, TensorType],
    constants: Mapping[str, NDArray[Any]],
    label: str,
) -> str | None:
    """What a label was chosen from; None for a tensor of real numbers or labels of another kind."""
    if types[label].dtype == TensorProto.FLOAT and _chosen(made, label) is None:
        return None
    tensor = label
    for _ in range(32):
        node = made.get(tensor)
        if node is None or not node.input:
            return None
        if node.op_type == "ArgMax":
            return str(node.input[0])
        if node.op_type == "Gather" and node.input[0] in constants:
            tensor = node.input[1]
        elif node.op_type == "Greater" and node.input[1] in constants:
            return str(node.input[0])
        elif node.op_type in _ARRANGING or node.op_type in ("Identity", "Cast"):
            tensor = node.input[0]
        else:
            return None
    return None


def _chosen(made: Mapping[str, NodeProto], tensor: str) -> NodeProto | None:
    """The Cast that makes real numbers of labels, if `tensor` comes from one."""
    node = made.get(_named(made, tensor))
    return node if node is not None and node.op_type == "Cast" else None


def _complemented(
    made: Mapping[str, NodeProto],
    types: Mapping[str, TensorType],
    constants: Mapping[str, NDArray[Any]],
    tensor: str,
) -> str | None:
    """The sigmoids p, of shape (samples, labels), where a tensor is the columns (1 - p, p)."""
    node = made.get(tensor)
    if node is None or node.op_type != "Concat" or len(node.input) != 2:
        return None
    if attributes(node).get("axis") not in (1, -1):
        return None
    first, p = made.get(node.input[0]), str(node.input[1])
    if first is None or first.op_type != "Sub" or first.input[1] != p:
        return None
    one, shape = constants.get(first.input[0]), types[p].shape
    if one is None or one.ravel().tolist() != [1.0] or shape is None or len(shape) != 2:
        return None
    return p if p in made and made[p].op_type == "Sigmoid" else None


def _is_two_classes(value: NDArray[Any] | None) -> bool:
    return value is not None and value.shape == (1, 2) and value.ravel().tolist() == [0.0, 1.0]


# --- while a file is read ---


def canonical_heads(r: Reading, classical: Collection[str]) -> None:
    """Bring the ends of a model into the forms that `prediction` knows.

    Probabilities (1 - p, p) of one logit become a softmax of (0, z); an activation whose result is only
    arranged anew is put behind that; probabilities that were mixed or normalised (outputs of a
    `classical` model) become the softmax of their logarithms, which they equal.
    """
    _two_classes(r)
    for output in sorted(r.outputs):
        _arranged_first(r, output)
    for output in classical:
        _logarithms(r, output)


def names_as_indices(r: Reading) -> dict[str, tuple[str, ...]]:
    """Let outputs that are class names be the indices of classes, since no tensor of a bundle holds text; the
    names by output."""
    tables: dict[str, tuple[str, ...]] = {}
    for node in list(r.nodes):
        table = r.value(node.input[0]) if node.input else None
        if node.op_type == "Gather" and table is not None and table.dtype.kind in "OSU":
            index = node.input[1]
            plain = table.ndim == 1
            copy = helper.make_node("Identity", [index], list(node.output))
            lifted = helper.make_node("Unsqueeze", [index, r.ints(0)], list(node.output))
            _replace(r, node, [copy if plain else lifted])
            tables[node.output[0]] = tuple(text(v) for v in table.ravel())
        elif (
            node.input
            and node.input[0] in tables
            and (node.op_type in _ARRANGING or node.op_type == "Identity")
        ):
            tables[node.output[0]] = tables[node.input[0]]
        else:
            continue
        known = r.types[node.output[0]]
        r.types[node.output[0]] = TensorType(TensorProto.INT64, known.shape)
    return {name: table for name, table in tables.items() if name in r.outputs}


def _two_classes(r: Reading) -> None:
    made = {o: n for n in r.nodes for o in n.output}
    for node in list(r.nodes):
        p = _complemented(made, r.types, r.constants, node.output[0])
        if p is None or r.shape(p)[-1] != 1:
            continue
        logits = r.fresh("read/logits")
        new = [
            helper.make_node("MatMul", [made[p].input[0], r.floats([[0.0, 1.0]])], [logits]),
            helper.make_node("Softmax", [logits], [node.output[0]], axis=-1),
        ]
        r.types[logits] = r.types[node.output[0]]
        _replace(r, node, new)


def _arranged_first(r: Reading, output: str) -> None:
    """act, then arrange -> arrange, then act: the same where only axes of size 1 go."""
    made = {o: n for n in r.nodes for o in n.output}
    arrange = made.get(_named(made, output))
    if arrange is None or arrange.op_type not in _ARRANGING or r.rank(arrange.output[0]) != 2:
        return
    act = made.get(_named(made, arrange.input[0]))
    if act is None or act.op_type not in _ACTIVATIONS:
        return
    before, after = r.types[act.output[0]].shape, r.shape(arrange.output[0])
    if before is None or act.output[0] in r.outputs:
        return
    if act.op_type != "Sigmoid":
        axis = attributes(act).get("axis", -1) % len(before)
        if [before[0], *(d for i, d in enumerate(before) if i and d != 1)] != [
            d for d in after if d != 1
        ] or (axis == 0 or before[axis] != after[1]):
            return
    logits = r.fresh("read/logits")
    first = NodeProto()
    first.CopyFrom(arrange)
    first.input[0], first.output[0] = act.input[0], logits
    second = NodeProto()
    second.CopyFrom(act)
    second.input[0], second.output[0] = logits, arrange.output[0]
    for attribute in second.attribute:
        if attribute.name == "axis":
            attribute.i = -1
    r.types[logits] = TensorType(TensorProto.FLOAT, after)
    _replace(r, arrange, [first, second])


def _logarithms(r: Reading, output: str) -> None:
    made = {o: n for n in r.nodes for o in n.output}
    if output not in made or r.types[output].dtype != TensorProto.FLOAT:
        return
    p = _named(made, output)
    if p == output:
        p = r.fresh("read/p")
        for name in made[output].output:
            r.types[p] = r.types[name]
        made[output].output[0] = p
        for node in r.nodes:
            node.input[:] = [p if i == output else i for i in node.input]
        r.nodes.append(helper.make_node("Identity", [p], [output]))
        made = {o: n for n in r.nodes for o in n.output}
    copy = made[output]
    if not _is_distribution(made, r.constants, p, 0) or made[p].op_type == "Softmax":
        return
    kept, log = r.fresh("read/p"), r.fresh("read/logits")
    new = [
        helper.make_node("Max", [p, r.floats(np.float32(_LEAST))], [kept]),
        helper.make_node("Log", [kept], [log]),
        helper.make_node("Softmax", [log], [output], axis=-1),
    ]
    r.types[kept] = r.types[log] = r.types[output]
    _replace(r, copy, new)


def _is_distribution(
    made: Mapping[str, NodeProto], constants: Mapping[str, NDArray[Any]], tensor: str, depth: int
) -> bool:
    """Whether rows are probabilities: a softmax, shares of a sum, or a mixture of such."""
    node = made.get(tensor)
    if node is None or depth > 16:
        return False

    def follow(name: str) -> bool:
        return _is_distribution(made, constants, name, depth + 1)

    if node.op_type == "Softmax":
        return True
    if node.op_type == "Div":
        return _is_sum(made, node.input[1], 0)
    if node.op_type in ("Add", "Sum", "Mean"):
        return all(follow(i) for i in node.input)
    if node.op_type == "Mul":
        return sum(follow(i) for i in node.input) == 1
    return node.op_type == "Identity" and follow(node.input[0])


def _is_sum(made: Mapping[str, NodeProto], tensor: str, depth: int) -> bool:
    """Whether a tensor is a sum along an axis, perhaps guarded against zero."""
    node = made.get(tensor)
    if node is None or depth > 4:
        return False
    if node.op_type in ("ReduceSum", "ReduceL1"):
        return True
    guards = ("Max", "Add", "Reshape", "Unsqueeze", "Where", "Clip")
    return node.op_type in guards and any(_is_sum(made, i, depth + 1) for i in node.input)


def _replace(r: Reading, node: NodeProto, new: Sequence[NodeProto]) -> None:
    at = next(i for i, n in enumerate(r.nodes) if n is node)
    r.nodes[at : at + 1] = list(new)
