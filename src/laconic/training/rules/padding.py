"""The gradient rule of padding."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.axes import padded, refuse, reversed_along


def pad(a: Application, dys: Gradients) -> Gradients:
    """dx is dy without its padding; what the padding repeated is added to the elements it repeated.

    The constant's gradient is the sum of what was left out.
    """
    g, dy = a.graph, only(dys)
    mode = a.attribute("mode", "constant")
    rest: list[str | None] = [None for _ in a.inputs[1:]]
    if mode != "constant":
        return (_folded(a, dy, mode), *rest)
    dx = _cropped(a, dy)
    if len(a.inputs) > 2 and a.wanted[2]:
        rest[1] = g.op(
            "Sub",
            g.op("ReduceSum", dy, keepdims=0),
            g.op("ReduceSum", dx, keepdims=0),
            shape=g.shape(a.inputs[2]),
        )
    return (dx, *rest)


def _cropped(a: Application, dy: str) -> str:
    g, pads = a.graph, a.inputs[1]
    axes = a.inputs[3] if len(a.inputs) > 3 else ""
    if g.value(pads) is None or (axes and g.value(axes) is None):
        return g.op("Pad", dy, g.op("Neg", pads), *(["", axes] if axes else []))
    return padded(g, dy, {axis: (-before, -after) for axis, (before, after) in _pads(a).items()})


def _folded(a: Application, dy: str, mode: str) -> str:
    g, x = a.graph, a.inputs[0]
    if mode not in ("reflect", "edge"):
        refuse(a, "mode", mode, "constant, reflect, edge")
    if g.value(a.inputs[1]) is None:
        refuse(a, f"pads in mode {mode}", "known only at run time", remedy="export them as constants")
    for axis, (before, after) in _pads(a).items():
        if min(before, after) < 0:
            if max(before, after) > 0:
                refuse(a, f"pads in mode {mode}", (before, after), "of one sign on each axis")
            dy = padded(g, dy, {axis: (-before, -after)})
            continue
        if before == after == 0:
            continue
        length = g.shape(x)[axis]
        if not isinstance(length, int):
            refuse(a, f"size of axis {axis}", length, f"a known one in mode {mode}")
        fold = _reflected if mode == "reflect" else _on_edges
        dy = fold(g, dy, axis, before, after, length)
    return dy


def _reflected(g: GraphBuilder, dy: str, axis: int, before: int, after: int, length: int) -> str:
    """Both ends are turned over and added next to the first and last element."""
    parts = g.split(dy, [s for s in (before, length, after) if s], axis)
    middle = parts[1 if before else 0]
    terms = [middle]
    if before:
        terms.append(padded(g, reversed_along(g, parts[0], axis), {axis: (1, length - 1 - before)}))
    if after:
        terms.append(padded(g, reversed_along(g, parts[-1], axis), {axis: (length - 1 - after, 1)}))
    return g.op("Add" if len(terms) == 2 else "Sum", *terms)


def _on_edges(g: GraphBuilder, dy: str, axis: int, before: int, after: int, length: int) -> str:
    """Each end is summed into the first or last element."""
    if length == 1:
        return g.op("ReduceSum", dy, g.ints(axis), keepdims=1)
    # The edge belongs to its padding: an end without padding stays in the middle.
    first, last = (before + 1 if before else 0), (after + 1 if after else 0)
    middle = length - (first > 0) - (last > 0)
    sizes = [s for s in (first, middle, last) if s]
    parts = g.split(dy, sizes, axis)
    if first:
        parts[0] = g.op("ReduceSum", parts[0], g.ints(axis), keepdims=1)
    if last:
        parts[-1] = g.op("ReduceSum", parts[-1], g.ints(axis), keepdims=1)
    return parts[0] if len(parts) == 1 else g.op("Concat", *parts, axis=axis)


def _pads(a: Application) -> dict[int, tuple[int, int]]:
    """Constant pads by axis, in front and behind."""
    g = a.graph
    rank = len(g.shape(a.inputs[0]))
    pads = g.value(a.inputs[1])
    axes = g.value(a.inputs[3]) if len(a.inputs) > 3 and a.inputs[3] else np.arange(rank)
    assert pads is not None
    assert axes is not None
    half = len(pads) // 2
    return {int(n) % rank: (int(b), int(e)) for n, b, e in zip(axes, pads[:half], pads[half:], strict=True)}


RULES: Mapping[str, Rule] = MappingProxyType({"Pad": pad})
