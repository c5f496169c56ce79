"""Gradient rules of matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from laconic.training.builder import GraphBuilder, Shape
from laconic.training.rules.application import Application, Gradients, Rule, only


def gemm(a: Application, dys: Gradients) -> Gradients:
    """Y = alpha A' B' + beta C, where ' is an optional transposition.

    dA = alpha dY B'^T and dB = alpha A'^T dY, each transposed back when its operand was.
    """
    g, dy = a.graph, only(dys)
    x, w = a.inputs[:2]
    tx, tw = int(a.attribute("transA", 0)), int(a.attribute("transB", 0))
    alpha, beta = float(a.attribute("alpha", 1.0)), float(a.attribute("beta", 1.0))
    dx = dw = None
    if a.wanted[0]:
        dx = _product(g, w, dy, tw, 1, alpha) if tx else _product(g, dy, w, 0, 1 - tw, alpha)
    if a.wanted[1]:
        shape = g.shape(w)
        dw = _product(g, dy, x, 1, tx, alpha, shape) if tw else _product(g, x, dy, 1 - tx, 0, alpha, shape)
    if len(a.inputs) < 3:
        return dx, dw
    dc = None
    if a.wanted[2]:
        dc = g.sum_to(dy, a.output_shape, a.inputs[2])
        dc = dc if beta == 1.0 else g.op("Mul", dc, g.scalar(beta))
    return dx, dw, dc


def matmul(a: Application, dys: Gradients) -> Gradients:
    """dX = dY W^T, dW = X^T dY, with numpy's rules for vectors and for broadcast leading axes."""
    g, dy = a.graph, only(dys)
    x, w = a.inputs
    x_shape, w_shape = g.shape(x), g.shape(w)
    if len(w_shape) == 2 and len(x_shape) >= 2:
        return _matrix_on_the_right(a, dy)
    # A vector is a matrix with an axis of length 1, which the product drops: put it back.
    x2, w2 = x, w
    if len(w_shape) == 1:
        w2, w_shape = g.op("Unsqueeze", w, g.ints(1)), (*w_shape, 1)
        dy = g.op("Unsqueeze", dy, g.ints(-1))
    if len(x_shape) == 1:
        x2, x_shape = g.op("Unsqueeze", x, g.ints(0)), (1, *x_shape)
        dy = g.op("Unsqueeze", dy, g.ints(-2))
    batch = _leading(a)
    dx = dw = None
    if a.wanted[0]:
        dx = g.op("MatMul", dy, _swapped(g, w2, len(w_shape)))
        dx = _summed(g, dx, (*batch, *x_shape[-2:]), x_shape, x)
    if a.wanted[1]:
        dw = g.op("MatMul", _swapped(g, x2, len(x_shape)), dy)
        dw = _summed(g, dw, (*batch, *w_shape[-2:]), w_shape, w)
    return dx, dw


def _matrix_on_the_right(a: Application, dy: str) -> Gradients:
    """The usual dense layer, as two Gemm: their transpositions cost nothing."""
    g = a.graph
    x, w = a.inputs
    rank = len(g.shape(x))
    flat = dy
    if rank > 2:
        flat = g.reshape(dy, -1, g.static(w)[1])
    dx = dw = None
    if a.wanted[0]:
        dx = _product(g, flat, w, 0, 1)
        dx = dx if rank == 2 else g.reshape_like(dx, x)
    if a.wanted[1]:
        rows = x if rank == 2 else g.reshape(x, -1, g.static(w)[0])
        dw = _product(g, rows, flat, 1, 0, shape=g.shape(w))
    return dx, dw


def _product(
    g: GraphBuilder, a: str, b: str, ta: int, tb: int, alpha: float = 1.0, shape: Shape | None = None
) -> str:
    attributes = {"transA": ta, "transB": tb, "alpha": alpha}
    defaults = {"transA": 0, "transB": 0, "alpha": 1.0}
    return g.op("Gemm", a, b, shape=shape, **{k: v for k, v in attributes.items() if v != defaults[k]})


def _leading(a: Application) -> Shape:
    """The broadcast leading axes of the product."""
    dropped = sum(len(a.graph.shape(i)) == 1 for i in a.inputs)
    shape = a.output_shape
    return shape[: len(shape) - 2 + dropped]


def _swapped(g: GraphBuilder, x: str, rank: int) -> str:
    return g.op("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _summed(g: GraphBuilder, x: str, wide: Shape, narrow: Shape, like: str) -> str:
    """Sum away broadcast leading axes, then drop an axis that stood in for a vector."""
    axes = [
        i
        for i, d in enumerate(wide)
        if i < len(wide) - len(narrow) or narrow[i - len(wide) + len(narrow)] != d
    ]
    if axes:
        x = g.op("ReduceSum", x, g.ints(*axes), keepdims=0)
    return g.reshape_like(x, like) if axes or len(narrow) != len(g.shape(like)) else x


RULES: Mapping[str, Rule] = MappingProxyType({"Gemm": gemm, "MatMul": matmul})
