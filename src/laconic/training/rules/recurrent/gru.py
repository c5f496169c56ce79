"""Gradient of GRU.

z, r = sigmoid of their gates; n = tanh(W x + b + r (R h + c)), or tanh(W x + b + R (r h) + c) with
`linear_before_reset` 0; h' = (1 - z) n + z h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients
from laconic.training.rules.recurrent.layer import (
    Arriving,
    Direction,
    Found,
    Layer,
    backward,
    contracted,
    default_activations,
    product,
    read,
    states_before,
    summed,
)


@dataclass(frozen=True, slots=True)
class _Gates:
    """The gates of all steps, each (length, batch, hidden), computed again.

    `h` is the state before the step, `hidden` what the recurrence gives to n before it is reset (after, for
    `linear_before_reset` 0, where nobody asks for it).
    """

    z: str
    r: str
    n: str
    h: str
    hidden: str


def gru(a: Application, dys: Gradients) -> Gradients:
    """All gates' gradients are dh times a factor that is known before the loop:

    dn = dh (1 - z)(1 - n^2), dz = dh (h - n) z (1 - z), and with `linear_before_reset` 1
    dr = dn (R h + c) r (1 - r), so that a turn is dh' = dh z + [dz, dr, dn r] R. With 0, dn R comes between:
    dr = (dn R) h r (1 - r), dh' = dh z + [dz, dr] R + (dn R) r.
    """
    default_activations(a, ["Sigmoid", "Tanh"])
    layer = read(a, 3)
    after = bool(a.attribute("linear_before_reset", 0))

    def cell(k: int, layer: Layer, y: str, arriving: Arriving) -> Found:
        direction = layer.directions[k]
        gates = _gates(layer, direction, y, after)
        if after:
            return _linear_first(layer, direction, gates, arriving)
        return _reset_first(layer, direction, gates, arriving)

    return backward(a, dys, layer, cell)


def _gates(layer: Layer, direction: Direction, y: str, linear_first: bool) -> _Gates:
    g, width = layer.graph, layer.hidden
    h = states_before(layer, direction, y)
    r_zr, r_n = g.split(direction.r, [2 * width, width], 0)
    from_x = _linear(g, layer.x, direction.w, direction.b and direction.b[0])
    b_zr, b_n = g.split(direction.b[1], [2 * width, width], 0) if direction.b else (None, None)
    x_zr, x_n = g.split(from_x, [2 * width, width], 2)
    z, r = g.split(g.op("Sigmoid", g.op("Add", x_zr, _linear(g, h, r_zr, b_zr))), [width] * 2, 2)
    if linear_first:
        hidden = _linear(g, h, r_n, b_n)
        n = g.op("Tanh", g.op("Add", x_n, g.op("Mul", r, hidden)))
    else:
        hidden = _linear(g, g.op("Mul", r, h), r_n, b_n)
        n = g.op("Tanh", g.op("Add", x_n, hidden))
    return _Gates(z, r, n, h, hidden)


def _linear_first(layer: Layer, direction: Direction, gates: _Gates, arriving: Arriving) -> Found:
    """A turn of the loop is Concat, Mul and Gemm: the factor z of dh itself is a fourth gate, whose weight is
    the identity."""
    g, width = layer.graph, layer.hidden
    to_z, to_n, keep = _factors(layer, gates)
    to_linear = g.op("Mul", to_n, gates.r)
    to_r = g.op("Mul", g.op("Mul", to_linear, gates.hidden), g.op("Sub", g.scalar(1.0), gates.r))
    factors = g.op("Concat", to_z, to_r, to_linear, keep, axis=2)
    weight = g.op("Concat", direction.r, g.floats(np.eye(width)), axis=0)
    sequences = [factors, *([arriving.dy] if arriving.dy else [])]

    def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        (dh,) = states
        v = b.op("Mul", b.op("Concat", dh, dh, dh, dh, axis=1), items[0])
        return [product(b, v, weight, items[1] if arriving.dy else None)], [v, b.op("Identity", dh)]

    (dh0,), (v, dh) = g.scan(turn, [arriving.dh], sequences, reverse=not direction.reverse)
    dz, dr, d_linear, _ = g.split(v, [width] * 4, 2)
    dn = g.op("Mul", dh, to_n)
    return _found(layer, direction, gates.h, [dz, dr, dn], [dz, dr, d_linear], dh0)


def _reset_first(layer: Layer, direction: Direction, gates: _Gates, arriving: Arriving) -> Found:
    g, width = layer.graph, layer.hidden
    to_z, to_n, keep = _factors(layer, gates)
    reset = g.op("Mul", gates.r, gates.h)
    to_r = g.op("Mul", reset, g.op("Sub", g.scalar(1.0), gates.r))
    r_zr, r_n = g.split(direction.r, [2 * width, width], 0)
    sequences = [to_z, to_n, to_r, keep, gates.r, *([arriving.dy] if arriving.dy else [])]

    def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        (dh,) = states
        dn = b.op("Mul", dh, items[1])
        d_reset = product(b, dn, r_n)
        v = b.op("Concat", b.op("Mul", dh, items[0]), b.op("Mul", d_reset, items[2]), axis=1)
        straight = b.op("Add", b.op("Mul", dh, items[3]), b.op("Mul", d_reset, items[4]))
        if arriving.dy:
            straight = b.op("Add", straight, items[5])
        return [product(b, v, r_zr, straight)], [v, dn]

    (dh0,), (dzr, dn) = g.scan(turn, [arriving.dh], sequences, reverse=not direction.reverse)
    found = _found(layer, direction, gates.h, [dzr, dn], [dzr, dn], dh0)
    of_zr = contracted(g, dzr, gates.h, 2 * width, width)
    of_n = contracted(g, dn, reset, width, width)
    return Found(found.x, found.w, g.op("Concat", of_zr, of_n, axis=0), found.b, dh0)


def _factors(layer: Layer, gates: _Gates) -> tuple[str, str, str]:
    """dz / dh, dn / dh and how much of dh goes on to the state before."""
    g = layer.graph
    one = g.scalar(1.0)
    open_ = g.op("Sub", one, gates.z)
    to_n = g.op("Mul", open_, g.op("Sub", one, g.op("Mul", gates.n, gates.n)))
    to_z = g.op("Mul", g.op("Sub", gates.h, gates.n), g.op("Mul", gates.z, open_))
    if layer.mask is None:
        return to_z, to_n, gates.z
    inside = layer.mask.inside
    keep = g.op("Add", g.op("Mul", gates.z, inside), layer.mask.outside)
    return g.op("Mul", to_z, inside), g.op("Mul", to_n, inside), keep


def _found(
    layer: Layer, direction: Direction, h: str, on_x: Sequence[str], on_h: Sequence[str], dh0: str
) -> Found:
    """`on_x` and `on_h` are the gradients of what the input and the recurrence give to the gates."""
    g, width = layer.graph, layer.hidden
    dx, dr = g.op("Concat", *on_x, axis=2), g.op("Concat", *on_h, axis=2)
    return Found(
        x=g.op("MatMul", dx, direction.w),
        w=contracted(g, dx, layer.x, 3 * width, layer.inputs),
        r=contracted(g, dr, h, 3 * width, width),
        b=g.op("Concat", summed(g, dx), summed(g, dr), axis=0),
        h0=dh0,
    )


def _linear(g: GraphBuilder, x: str, w: str, b: str | None) -> str:
    """x w^T + b, along the last axis of x."""
    y = g.op("MatMul", x, g.op("Transpose", w, perm=[1, 0]))
    return g.op("Add", y, b) if b else y
