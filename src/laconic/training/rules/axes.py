"""Sizes of axes as tensors: constants where they are known, asked of a tensor at run time where not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import numpy as np
from onnx import helper, numpy_helper

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, key

FAR = int(np.iinfo(np.int64).max)
"""The end of a Slice that takes everything up to the end."""


def size(g: GraphBuilder, x: str, axis: int) -> int | str:
    """The size of axis `axis` (counted from the front) of a tensor of the model: a number, or the name of an
    int64 vector of length 1."""
    known = g.shape(x)[axis]
    return known if isinstance(known, int) else g.op("Shape", x, start=axis, end=axis + 1)


def vector(g: GraphBuilder, *parts: int | str) -> str:
    """Numbers and int64 vectors, one after the other, as one int64 vector."""
    joined: list[str] = []
    numbers: list[int] = []
    for part in (*parts, None):
        if isinstance(part, int):
            numbers.append(part)
            continue
        if numbers:
            joined.append(g.ints(*numbers))
            numbers = []
        if part is not None:
            joined.append(part)
    return joined[0] if len(joined) == 1 else g.op("Concat", *joined, axis=0)


def difference(g: GraphBuilder, a: int | str, b: int | str) -> int | str:
    """a - b."""
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return a if b == 0 else g.op("Sub", vector(g, a), vector(g, b))


def product(g: GraphBuilder, a: int | str, factor: int) -> int | str:
    """a times a number."""
    if isinstance(a, int):
        return a * factor
    return a if factor == 1 else g.op("Mul", a, g.ints(factor))


def zeros(g: GraphBuilder, shape: str) -> str:
    """Real zeros of a shape that is an int64 vector."""
    value = np.zeros(1, helper.tensor_dtype_to_np_dtype(g.real))
    return g.op("ConstantOfShape", shape, value=numpy_helper.from_array(value))


def zeros_like(g: GraphBuilder, x: str) -> str:
    """Real zeros of the shape of a tensor of the model."""
    return zeros(g, g.shape_of(x))


def padded(g: GraphBuilder, x: str, around: Mapping[int, tuple[int | str, int | str]]) -> str:
    """`x` with zeros before and after it along each axis of `around`; a negative number, if it is known,
    takes elements away instead.

    Taking away is a Slice: it needs two thirds of the time of a Pad with negative pads.
    """
    less = {
        axis: [max(0, -p) if isinstance(p, int) else 0 for p in pads]
        for axis, pads in around.items()
        if any(isinstance(p, int) and p < 0 for p in pads)
    }
    if less:
        starts = [before for before, _ in less.values()]
        ends = [-after if after else FAR for _, after in less.values()]
        x = g.op("Slice", x, g.ints(*starts), g.ints(*ends), g.ints(*less))
    more = {
        axis: tuple(max(0, p) if isinstance(p, int) else p for p in pads) for axis, pads in around.items()
    }
    more = {axis: pads for axis, pads in more.items() if pads != (0, 0)}
    if not more:
        return x
    pads = [before for before, _ in more.values()] + [after for _, after in more.values()]
    return g.op("Pad", x, vector(g, *pads), "", g.ints(*more))


def reversed_along(g: GraphBuilder, x: str, *axes: int) -> str:
    """`x` with its elements in the opposite order along `axes`."""
    if not axes:
        return x
    ones = [-1] * len(axes)
    lowest = [np.iinfo(np.int64).min + 1] * len(axes)
    return g.op("Slice", x, g.ints(*ones), g.ints(*lowest), g.ints(*axes), g.ints(*ones))


def refuse(
    a: Application, thing: str, value: object = None, limit: object = None, remedy: str = ""
) -> NoReturn:
    """Raise `ModelError` for something about a node that its rule does not cover."""
    where = f"{thing} of {a.node.op_type} at node {a.node.name or key(a.node)!r}"
    raise ModelError(where, value=value, limit=limit, remedy=remedy or "freeze every weight before it")
