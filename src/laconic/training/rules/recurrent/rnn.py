"""Gradient of RNN: h_t = f(W x_t + R h_(t-1) + b)."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients
from laconic.training.rules.recurrent.layer import (
    Arriving,
    Found,
    Layer,
    activations,
    backward,
    contracted,
    product,
    read,
    states_before,
    summed,
)

_ALLOWED = ("Tanh", "Relu", "Sigmoid")


def rnn(a: Application, dys: Gradients) -> Gradients:
    """With v_t = dh_t f'(.): dh_(t-1) = v_t R, dW = sum v_t x_t^T, dR = sum v_t h_(t-1)^T.

    f' follows from h alone: 1 - h^2 for Tanh, h (1 - h) for Sigmoid, and 1 where h > 0 for Relu (so 0 at its
    kink, as PyTorch has it).
    """
    names = activations(a, ["Tanh"], _ALLOWED)
    layer = read(a, 1)

    def cell(k: int, layer: Layer, y: str, arriving: Arriving) -> Found:
        return _direction(k, layer, y, arriving, names[k])

    return backward(a, dys, layer, cell)


def _direction(k: int, layer: Layer, y: str, arriving: Arriving, activation: str) -> Found:
    g, direction, hidden = layer.graph, layer.directions[k], layer.hidden
    slope = _slope(g, y, activation)
    sequences = [slope]
    if arriving.dy:
        sequences.append(arriving.dy)
    if layer.mask:
        sequences[0] = g.op("Mul", slope, layer.mask.inside)
        sequences.append(layer.mask.outside)

    def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        (dh,) = states
        v = b.op("Mul", dh, items[0])
        earlier = product(b, v, direction.r, items[1] if arriving.dy else None)
        if layer.mask:
            earlier = b.op("Add", earlier, b.op("Mul", dh, items[-1]))
        return [earlier], [v]

    (dh0,), (dg,) = g.scan(turn, [arriving.dh], sequences, reverse=not direction.reverse)
    bias = summed(g, dg)
    return Found(
        x=g.op("MatMul", dg, direction.w),
        w=contracted(g, dg, layer.x, hidden, layer.inputs),
        r=contracted(g, dg, states_before(layer, direction, y), hidden, hidden),
        b=g.op("Concat", bias, bias, axis=0),
        h0=dh0,
    )


def _slope(g: GraphBuilder, h: str, activation: str) -> str:
    if activation == "Relu":
        return g.op("HardSigmoid", h, alpha=1e30, beta=0.0)
    square = g.op("Mul", h, h)
    return g.op("Sub", h if activation == "Sigmoid" else g.scalar(1.0), square)
