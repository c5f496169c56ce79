"""Gradient rules of operators that pick or place elements by index."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.axes import difference, padded, refuse, size, vector, zeros, zeros_like


def gather(a: Application, dys: Gradients) -> Gradients:
    """dx sums, at each position along the axis, the parts of dy that were picked there.

    A gradient with respect to rows (axis 0) picked at run time is one
    `ScatterND(ConstantOfShape(shape), indices, dy, reduction="add")`, which an optimizer can turn into one
    that works on the weight itself.
    """
    g, dy = a.graph, only(dys)
    x, indices = a.inputs
    axis = a.attribute("axis", 0) % len(g.shape(x))
    known = g.value(indices)
    dx = None if known is None else _picked_at(a, dy, axis, known)
    return (_added_at(a, dy, axis) if dx is None else dx), None


def _picked_at(a: Application, dy: str, axis: int, indices: NDArray[np.integer]) -> str | None:
    """The gradient for constant indices that name no position twice, without any scattering."""
    g, x = a.graph, a.inputs[0]
    length = size(g, x, axis)
    picked = indices.reshape(-1)
    if isinstance(length, int):
        picked = picked % length
    elif len({int(i) < 0 for i in picked}) > 1:
        return None
    if len(picked) == 0 or len(set(picked.tolist())) < len(picked):
        return None
    if indices.ndim == 0:
        dy = g.op("Unsqueeze", dy, g.ints(axis))
    elif indices.ndim > 1:
        behind = [size(g, x, i) for i in range(axis + 1, len(g.shape(x)))]
        dy = g.op("Reshape", dy, vector(g, *[0] * axis, len(picked), *behind))
    first, count = int(picked[0]), len(picked)
    if np.array_equal(picked, np.arange(first, first + count)):
        if first >= 0:
            return padded(g, dy, {axis: (first, difference(g, length, first + count))})
        return padded(g, dy, {axis: (difference(g, length, -first), -first - count)})
    if not isinstance(length, int):
        return None
    places = np.full(length, count)
    places[picked] = np.arange(count)
    if count < length:
        dy = padded(g, dy, {axis: (0, 1)})
    return g.op("Gather", dy, g.constant(places.astype(np.int64)), axis=axis)


def _added_at(a: Application, dy: str, axis: int) -> str:
    """The gradient for any indices; another axis than the first is brought to the front and back."""
    g = a.graph
    x, indices = a.inputs
    rank, depth = len(g.shape(x)), len(g.shape(indices))
    rows = g.op("Unsqueeze", _int64(g, indices), g.ints(-1))
    if axis == 0:
        return g.op("ScatterND", zeros_like(g, x), rows, dy, reduction="add")
    front = [*range(axis, axis + depth), *range(axis), *range(axis + depth, rank - 1 + depth)]
    order = [axis, *(i for i in range(rank) if i != axis)]
    empty = zeros(g, vector(g, *(size(g, x, i) for i in order)))
    turned = g.op("ScatterND", empty, rows, g.op("Transpose", dy, perm=front), reduction="add")
    return g.op("Transpose", turned, perm=[int(p) for p in np.argsort(order)])


def gather_elements(a: Application, dys: Gradients) -> Gradients:
    """dx adds dy up where its elements were picked."""
    g = a.graph
    x, indices = a.inputs
    axis = a.attribute("axis", 0) % len(g.shape(x))
    return g.op("ScatterElements", zeros_like(g, x), indices, only(dys), axis=axis, reduction="add"), None


def gather_nd(a: Application, dys: Gradients) -> Gradients:
    """dx adds dy up where its elements or slices were picked; batch axes become one more index."""
    g, dy = a.graph, only(dys)
    x, indices = a.inputs
    batch = a.attribute("batch_dims", 0)
    if batch == 0:
        return g.op("ScatterND", zeros_like(g, x), indices, dy, reduction="add"), None
    shape = g.shape(indices)
    if batch > 1:
        refuse(a, "batch_dims", batch, "0 or 1")
    own = g.op(
        "Range",
        g.constant(np.array(0)),
        g.op("Gather", g.op("Shape", x), g.constant(np.array(0))),
        g.constant(np.array(1)),
    )
    column = g.op("Reshape", own, g.ints(-1, *[1] * (len(shape) - 1)))
    one_each = vector(g, *(size(g, indices, i) for i in range(len(shape) - 1)), 1)
    full = g.op("Concat", g.op("Expand", column, one_each), indices, axis=-1)
    return g.op("ScatterND", zeros_like(g, x), full, dy, reduction="add"), None


def scatter_elements(a: Application, dys: Gradients) -> Gradients:
    """What was replaced has no gradient in the data; the updates' is dy at their positions.

    As in PyTorch, the gradient is that of indices without repetition unless updates are added.
    """
    g, dy = a.graph, only(dys)
    x, indices, updates = a.inputs
    axis = a.attribute("axis", 0) % len(g.shape(x))
    d_data = d_updates = None
    if a.wanted[0]:
        d_data = dy
        if not _adds(a):
            d_data = g.op("ScatterElements", dy, indices, zeros_like(g, updates), axis=axis)
    if a.wanted[2]:
        d_updates = g.op("GatherElements", dy, indices, axis=axis)
    return d_data, None, d_updates


def scatter_nd(a: Application, dys: Gradients) -> Gradients:
    """As `scatter_elements`, for whole slices."""
    g, dy = a.graph, only(dys)
    _, indices, updates = a.inputs
    d_data = d_updates = None
    if a.wanted[0]:
        d_data = dy if _adds(a) else g.op("ScatterND", dy, indices, zeros_like(g, updates))
    if a.wanted[2]:
        d_updates = g.op("GatherND", dy, indices)
    return d_data, None, d_updates


def _adds(a: Application) -> bool:
    reduction = a.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        refuse(a, "reduction", reduction, "none or add")
    return bool(reduction == "add")


def top_k(a: Application, dys: Gradients) -> Gradients:
    """dx is dy where the largest (or smallest) elements were; among equal ones, where TopK picked."""
    g, dy = a.graph, dys[0]
    x, k = a.inputs
    if dy is None:
        return None, None
    axis = a.attribute("axis", -1) % len(g.shape(x))
    if len(a.node.output) > 1 and a.node.output[1]:
        indices = str(a.node.output[1])
    else:
        largest = a.attribute("largest", 1)
        _, indices = g.ops("TopK", x, k, outputs=2, axis=axis, largest=largest)
    return g.op("ScatterElements", zeros_like(g, x), indices, dy, axis=axis), None


def _int64(g: GraphBuilder, indices: str) -> str:
    """ScatterND takes no others."""
    known = g.types.get(indices)
    if known is None or known.dtype == TensorProto.INT64:
        return indices
    return g.op("Cast", indices, to=TensorProto.INT64)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Gather": gather,
        "GatherElements": gather_elements,
        "GatherND": gather_nd,
        "ScatterElements": scatter_elements,
        "ScatterND": scatter_nd,
        "TopK": top_k,
    }
)
