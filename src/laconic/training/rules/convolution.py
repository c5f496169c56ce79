"""Gradient rules of convolutions, for any number of spatial axes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.window import Window, window_of


def conv(a: Application, dys: Gradients) -> Gradients:
    """dX is the transposed convolution of dY; dW correlates X with dY; db sums dY."""
    g, dy = a.graph, only(dys)
    x, w = a.inputs[:2]
    window = window_of(a, g.static(w)[2:])
    group = int(a.attribute("group", 1))
    dx = dw = db = None
    if a.wanted[0]:
        dx = g.op("ConvTranspose", dy, w, group=group, **window.transposed())
    if a.wanted[1]:
        if window.taps == 1 and group == 1 and window.plain and set(window.strides) == {1}:
            dw = _pointwise_weight(g, x, w, dy)
        elif group == 1:
            dw = _weight(g, x, w, dy, window)
        else:
            dw = _grouped_weight(g, x, w, dy, window, group)
    if len(a.inputs) < 3:
        return dx, dw
    if a.wanted[2]:
        db = g.op("ReduceSum", dy, g.ints(0, *range(2, 2 + window.rank)), keepdims=0)
    return dx, dw, db


def _weight(g: GraphBuilder, x: str, w: str, dy: str, window: Window) -> str:
    """Unfold the input by slices (im2col) and contract over batch and space in one Gemm.

    Rows of the unfolded input are ordered channel, tap: as in W, so that nothing has to be moved after.
    """
    channels_out, channels_in = g.static(w)[:2]
    columns = _unfolded(g, _channels_first(g, x, window.rank), window)
    columns = g.reshape(columns, channels_in * window.taps, -1)
    rows = g.reshape(_channels_first(g, dy, window.rank), channels_out, -1)
    flat = (channels_out, channels_in * window.taps)
    return g.reshape_like(g.op("Gemm", rows, columns, transB=1, shape=flat), w)


def _pointwise_weight(g: GraphBuilder, x: str, w: str, dy: str) -> str:
    """A 1x1 convolution is a matrix product at each position: one batched product, no unfolding."""
    channels_out, channels_in = g.static(w)[:2]
    rows = g.reshape(dy, 0, channels_out, -1)
    columns = g.op("Transpose", g.reshape(x, 0, channels_in, -1), perm=[0, 2, 1])
    each = g.op("MatMul", rows, columns)
    return g.reshape_like(g.op("ReduceSum", each, g.ints(0), keepdims=0), w)


def _grouped_weight(g: GraphBuilder, x: str, w: str, dy: str, window: Window, group: int) -> str:
    """As `_weight`, with one matrix product for each group, batched."""
    channels_out, channels_in = g.static(w)[:2]
    columns = _unfolded(g, _channels_first(g, x, window.rank), window)
    columns = g.reshape(columns, group, channels_in * window.taps, -1)
    rows = g.reshape(_channels_first(g, dy, window.rank), group, channels_out // group, -1)
    return g.reshape_like(g.op("MatMul", rows, g.op("Transpose", columns, perm=[0, 2, 1])), w)


def _channels_first(g: GraphBuilder, x: str, rank: int) -> str:
    return g.op("Transpose", x, perm=[1, 0, *range(2, 2 + rank)])


def _unfolded(g: GraphBuilder, x: str, window: Window) -> str:
    """`x` as [channel, batch, space...] to [channel, tap, batch, windows...]."""
    padded = window.padded(g, x, 0.0, axis=2)
    deep = g.op("Unsqueeze", padded, g.ints(1))
    taps = list(window.tap_slices(g, deep, axis=3))
    return taps[0] if len(taps) == 1 else g.op("Concat", *taps, axis=1)


RULES: Mapping[str, Rule] = MappingProxyType({"Conv": conv})
