"""Brings nodes of opset 18 into the one form that rules expect, where the standard has several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from onnx import NodeProto

from laconic.errors import ModelError
from laconic.training.source.output_shapes import broadcast, reshaped
from laconic.training.source.reading import Reading
from laconic.training.source.tensors import attributes

Write = Callable[[Reading, NodeProto, dict[str, Any]], bool]


def normalised(r: Reading, node: NodeProto) -> bool:
    """Write the node in its form; False if it has it."""
    write = _FORMS.get(node.op_type)
    return write is not None and write(r, node, attributes(node))


def _batch_normalization(r: Reading, node: NodeProto, settings: dict[str, Any]) -> bool:
    """The inference form: running statistics in, one output. Extra outputs of a model exported in training
    mode are the statistics as they came in."""
    if not settings.get("training_mode") and len(node.output) == 1 and settings.get("spatial") is None:
        return False
    if settings.get("spatial", 1) != 1:
        raise ModelError(
            f"BatchNormalization {node.name or node.output[0]!r} with statistics per element",
            value="spatial=0",
            remedy="export at opset 9 or later",
        )
    kept = {k: v for k, v in settings.items() if k in ("epsilon", "momentum")}
    r.op("BatchNormalization", *node.input, outputs=[node.output[0]], **kept)
    # Opsets 7 and 9: mean, var, saved_mean, saved_var; since 14: running_mean, running_var.
    for name, statistic in zip(node.output[1:], (*node.input[3:5], *node.input[3:5]), strict=False):
        if name:
            r.alias(name, statistic)
    return True


def _lp_normalization(r: Reading, node: NodeProto, settings: dict[str, Any]) -> bool:
    reduction = "ReduceL1" if settings.get("p", 2) == 1 else "ReduceL2"
    size = r.op(reduction, node.input[0], r.ints(settings.get("axis", -1)))
    # What is zero everywhere stays zero.
    size = r.op("Max", size, r.floats(1e-30))
    r.op("Div", node.input[0], size, outputs=list(node.output))
    return True


def _length_first(r: Reading, node: NodeProto, settings: dict[str, Any]) -> bool:
    """Recurrent layers with the batch first: onnxruntime has no kernel for them."""
    if not settings.pop("layout", 0):
        return False
    turned = (0, 5, 6)
    inputs = [
        r.op("Transpose", name, perm=[1, 0, 2]) if name and i in turned else name
        for i, name in enumerate(node.input)
    ]
    made = [r.fresh(f"{name}/length_first") if name else "" for name in node.output]
    r.op(node.op_type, *inputs, outputs=made, **settings)
    for i, (inner, name) in enumerate(zip(made, node.output, strict=True)):
        if name:
            perm = [1, 0, 2] if i else [2, 0, 1, 3]
            r.op("Transpose", r.now(inner), outputs=[name], perm=perm)
    return True


def _diagonals(r: Reading, node: NodeProto, settings: dict[str, Any]) -> bool:
    """A letter twice in an operand of Einsum is the operand's diagonal."""
    left, arrow, right = settings["equation"].replace(" ", "").partition("->")
    terms = left.split(",")
    letters = Counter(c for c in left if c.isalpha())
    if len(terms) != len(node.input) or all(_repeated(term) is None for term in terms):
        return False
    if not arrow:
        right = "..." * ("..." in left) + "".join(sorted(c for c, n in letters.items() if n == 1))
    inputs = list(node.input)
    for i in range(len(terms)):
        while (letter := _repeated(terms[i])) is not None:
            found = _diagonal(r, inputs[i], terms[i], letter)
            if found is None:
                return False  # of unknown length: refused by the rule
            inputs[i], terms[i] = found
    r.op("Einsum", *inputs, outputs=list(node.output), equation=f"{','.join(terms)}->{right}")
    return True


def _repeated(term: str) -> str | None:
    return next((c for c in term if c.isalpha() and term.count(c) > 1), None)


def _diagonal(r: Reading, x: str, term: str, letter: str) -> tuple[str, str] | None:
    """The tensor with its first two axes of this letter made one, which comes last, and its new term."""
    known = r.types.get(x)
    if known is None or known.shape is None:
        return None
    hidden = len(known.shape) - len(term.replace("...", ""))
    labels = list(term.replace("...", "." * hidden))
    first = labels.index(letter)
    second = labels.index(letter, first + 1)
    n = known.shape[first]
    if not isinstance(n, int) or known.shape[second] != n:
        return None
    others = [i for i in range(len(labels)) if i not in (first, second)]
    last = len(others)
    turned = r.op("Transpose", x, perm=[*others, first, second])
    flat = r.op("Reshape", turned, r.ints(*[0] * last, n * n))
    made = r.op("Slice", flat, r.ints(0), r.ints(n * n), r.ints(last), r.ints(n + 1))
    rest = "".join(labels[i] for i in others)
    return made, (rest.replace("." * hidden, "...", 1) if hidden else rest) + letter


def _range(r: Reading, node: NodeProto, settings: dict[str, Any]) -> bool:
    """Bounds without axes; onnxruntime takes vectors of one element too, and AffineGrid's body has them."""
    if not any(r.rank(name) == 1 for name in node.input):
        return False
    bounds = [r.op("Reshape", name, r.ints()) if r.rank(name) == 1 else name for name in node.input]
    r.op("Range", *bounds, outputs=list(node.output))
    return True


def _expand(r: Reading, node: NodeProto, settings: dict[str, Any]) -> bool:
    """To the shape that it has already, as the body of Attention does where keys are not shared."""
    source, target = r.sizes(node.input[0]), r.values(node.input[1])
    if source is None or target is None or broadcast(source, list(target)) != source:
        return False
    r.alias(node.output[0], node.input[0])
    return True


def _reshape(r: Reading, node: NodeProto, settings: dict[str, Any]) -> bool:
    """Back to the shape of before an axis came in or went."""
    before = r.maker(node.input[0])
    if before is None or before.op_type not in ("Unsqueeze", "Squeeze"):
        return False
    source, target = r.sizes(node.input[0]), r.values(node.input[1])
    due = r.sizes(before.input[0])
    if source is None or target is None or due is None or reshaped(node, source, list(target)) != due:
        return False
    r.alias(node.output[0], before.input[0])
    return True


def _where(r: Reading, node: NodeProto, settings: dict[str, Any]) -> bool:
    """A choice that is always the same is none; rows that are not chosen must not spoil the gradient."""
    condition, x, y = node.input
    known = r.value(condition)
    if known is not None and known.size and (known.all() or not known.any()):
        chosen, other = (x, y) if known.all() else (y, x)
        if _keeps_shape(r, chosen, other) and _keeps_shape(r, chosen, condition):
            r.alias(node.output[0], chosen)
            return True
    return _safe_softmax(r, node)


def _add(r: Reading, node: NodeProto, settings: dict[str, Any]) -> bool:
    """A mask that masks nothing."""
    for x, y in (node.input, reversed(node.input)):
        if r.value(y) is not None and r.holds_zeros(y) and _keeps_shape(r, x, y):
            r.alias(node.output[0], x)
            return True
    return False


def _keeps_shape(r: Reading, x: str, other: str) -> bool:
    """Whether `x` stays as large as it is when it meets `other`."""
    sizes, others = r.sizes(x), r.sizes(other)
    return sizes is not None and others is not None and broadcast(sizes, others) == sizes


def _safe_softmax(r: Reading, node: NodeProto) -> bool:
    """Zeros in the rows of a Softmax that are masked as a whole, as the body of Attention has them.

    Such a row is not a number, and its gradient would not be one although nobody reads it: the row is taken
    as zeros before the Softmax as well.
    """
    rows, zeros, y = node.input
    softmax, shape, rank = r.maker(y), r.types[rows].shape if rows in r.types else None, r.rank(y)
    if softmax is None or softmax.op_type != "Softmax" or not shape or shape[-1] != 1 or rank is None:
        return False
    axis, before = attributes(softmax).get("axis", -1), r.maker(softmax.input[0])
    if axis not in (-1, rank - 1) or not r.holds_zeros(zeros) or y not in r.varying:
        return False
    if before is not None and before.op_type == "Where" and before.input[0] == rows:
        return False  # is so already
    given = r.op("Where", rows, zeros, softmax.input[0])
    r.op("Where", rows, zeros, r.op("Softmax", given, axis=-1), outputs=list(node.output))
    return True


_FORMS: Mapping[str, Write] = {
    "Add": _add,
    "BatchNormalization": _batch_normalization,
    "Einsum": _diagonals,
    "Expand": _expand,
    "LpNormalization": _lp_normalization,
    "Range": _range,
    "Reshape": _reshape,
    "Where": _where,
    **dict.fromkeys(("RNN", "GRU", "LSTM"), _length_first),
}
