"""Gradient of LSTM (Hochreiter & Schmidhuber, 1997; with the forget gate of Gers et al., 2000).

i, o, f = sigmoid and g = tanh of their gates; c' = f c + i g; h' = o tanh c'.

The way back needs every gate of every step. For few samples onnxruntime's own operator is by far the fastest
way forward, and one product over all steps gives the gates again; for many, what then has to be written and
read again outside the caches costs more than a loop that goes forward and keeps the factors as it goes. So a
training step holds both and chooses by the size of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Saved, Training
from laconic.training.rules.recurrent.layer import (
    STATES,
    Arriving,
    Direction,
    Found,
    Layer,
    apart,
    backward,
    default_activations,
    product,
    read,
    rows,
    states_before,
    together,
    with_states,
)

MANY = 512
"""From batch * hidden of this size on, a training step goes forward in a loop.

Measured with 128 steps of 9 values, forward and backward as a ratio to PyTorch 2.13, onnxruntime's operator
against the loop: batch 1, hidden 32 / 64 / 128: 1.1 against 1.9, 1.1 against 1.8, 1.1 against 1.5; batch 8:
1.2 against 1.6, 1.6 against 1.6, 2.0 against 1.6; batch 32: 1.9 against 1.4, 1.3 and 1.2.
"""


@dataclass(frozen=True, slots=True)
class _Factors:
    """What the way back needs of all steps of one direction.

    With j = sigmoid(2 x) for the gate whose tanh(x) is g = 2 j - 1, all four gates are one sigmoid, and their
    slopes s (1 - s). `gates` (length, batch, 4 hidden) is what dc', dh', dc', dc' become at the gates i, o, f
    and j (for j a quarter of it); `cell` what dh' adds to dc', o (1 - tanh^2 c'); `forget` what of dc' goes
    on to dc. `inputs` holds x, 1 and h of each step: what the gates are linear in.
    """

    gates: str
    cell: str
    forget: str
    inputs: str


def lstm(a: Application, dys: Gradients) -> Gradients:
    """The loop takes dh' and dc' to dc' + dh' o (1 - tanh^2 c') = d, then to the gates, and from there to
    dh = gates R and dc = d f: four products and two sums for each step, two of them in one Gemm."""
    default_activations(a, ["Sigmoid", "Tanh", "Tanh"])
    layer = read(a, 4)

    def cell(k: int, layer: Layer, y: str, arriving: Arriving) -> Found:
        if "gates0" in a.saved:
            factors = _Factors(*(a.saved[f"{name}{k}"] for name in _Factors.__slots__))
        else:
            factors = _again(layer, layer.directions[k], y)
        return _direction(layer, layer.directions[k], factors, arriving)

    return backward(a, dys, layer, cell)


def lstm_form(a: Application, training: Training | None) -> Saved:
    """In a training step: with the factors of the way back, in the manner that suits the batch."""
    if training is None or not _is_plain(a) or not any(a.wanted):
        return with_states(a, training)
    g = a.graph
    count, _, hidden = g.static(a.inputs[2])
    batch = g.shape(a.inputs[0])[1]
    if isinstance(batch, int) and batch * hidden < MANY:
        return with_states(a, training)
    saved = {f"{n}{k}": g.fresh(n) for k in range(count) for n in _Factors.__slots__}
    outputs = [o or g.fresh("unused") for o in (*a.node.output, "", "", "")[:3]]
    if not a.node.output[0]:
        saved[STATES] = outputs[0]
    made = [*outputs, *(saved[f"{n}{k}"] for k in range(count) for n in _Factors.__slots__)]
    if isinstance(batch, int):
        for name, tensor in zip(made, _in_loops(a, g), strict=True):
            g.append(helper.make_node("Identity", [tensor], [name]))
        return saved
    size = g.op("Gather", g.op("Shape", a.inputs[0]), g.constant(np.array(1)))
    many = g.op("GreaterOrEqual", size, g.constant(np.array(-(-MANY // hidden))))
    g.either(many, lambda b: _in_loops(a, b), lambda b: _by_operator(a, b), made)
    return saved


def _is_plain(a: Application) -> bool:
    """Nothing but what the loop covers: no lengths, no peepholes, no other activations."""
    inputs = [*a.inputs, "", "", "", "", ""]
    special = ("activations", "clip", "input_forget", "layout")
    return not inputs[4] and not inputs[7] and not any(a.attribute(n) for n in special)


def _by_operator(a: Application, b: GraphBuilder) -> list[str]:
    """The node itself, and the factors computed afterwards."""
    node = NodeProto()
    node.CopyFrom(a.node)
    outputs = [b.fresh("LSTM") for _ in range(3)]
    del node.output[:]
    node.output.extend(outputs)
    b.append(node)
    layer = read(a, 4, b)
    states = apart(b, outputs[0], len(layer.directions), 1)
    factors = [_again(layer, d, y) for d, y in zip(layer.directions, states, strict=True)]
    return [*outputs, *(name for f in factors for name in astuple(f))]


def _in_loops(a: Application, b: GraphBuilder) -> list[str]:
    """One loop for each direction, in place of the node."""
    layer = read(a, 4, b)
    ways = [_forward(layer, d) for d in layer.directions]
    ys, hs, cs, factors = zip(*ways, strict=True)
    y = ys[0] if len(ys) == 1 else b.op("Concat", *ys, axis=1)
    outputs = [y, together(b, hs, 0), together(b, cs, 0)]
    return [*outputs, *(name for f in factors for name in astuple(f))]


def _forward(layer: Layer, direction: Direction) -> tuple[str, str, str, _Factors]:
    """All hidden states (length, 1, batch, hidden), the last one, the cell's last state, and the factors.

    Gemm and not MatMul: onnxruntime makes one operation of it and the Sigmoid. With samples as columns this
    product takes a quarter less at batch 32, and a step, in which the loop back then sums up the gradients of
    the weights turn by turn, 3 to 5 % less at batch 16 and 32, but a tenth more at batch 8.
    """
    g, width = layer.graph, layer.hidden
    weight = _weight(layer, direction)

    def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        h, c = states
        inputs = b.op("Concat", items[0], h, axis=1)
        s = b.op("Sigmoid", b.op("Gemm", inputs, weight))
        i, o, f, j = b.split(s, [width] * 4, 1)
        ij, ig = _candidate(b, i, j)
        fc = b.op("Mul", c, f)
        c = b.op("Add", fc, ig)
        tanh = b.op("Tanh", c)
        h = b.op("Mul", o, tanh)
        gates, cell = _slopes(b, s, o, ij, ig, fc, h, tanh, axis=1)
        # A state cannot be a result too without a copy, and so the axis of directions comes for nothing.
        return [h, c], [b.op("Unsqueeze", h, b.ints(0)), gates, cell, f, inputs]

    (h, c), (y, *factors) = g.scan(
        turn, [direction.h0, direction.c0], [_with_one(layer)], reverse=direction.reverse
    )
    return y, h, c, _Factors(*factors)


def _again(layer: Layer, direction: Direction, y: str) -> _Factors:
    """The factors from the hidden states `y`: only the cell's state needs a loop."""
    g, width, mask = layer.graph, layer.hidden, layer.mask
    inputs = g.op("Concat", _with_one(layer), states_before(layer, direction, y), axis=2)
    s = g.op("Sigmoid", g.op("MatMul", inputs, _weight(layer, direction)))
    i, o, f, j = g.split(s, [width] * 4, 2)
    ij, ig = _candidate(g, i, j)
    if mask:
        f = g.op("Add", g.op("Mul", f, mask.inside), mask.outside)
        ig = g.op("Mul", ig, mask.inside)

    fc = _kept(g, layer, direction, f, ig)
    tanh = g.op("Tanh", g.op("Add", fc, ig))
    gates, cell = _slopes(g, s, o, ij, ig, fc, y, tanh, axis=2)
    if mask:
        gates, cell = g.op("Mul", gates, mask.inside), g.op("Mul", cell, mask.inside)
    return _Factors(gates, cell, f, inputs)


def _kept(g: GraphBuilder, layer: Layer, direction: Direction, f: str, ig: str) -> str:
    """f c of every step, where c' = f c + `ig`: a loop of two operations, or two short loops.

    With a length that is known and has a divisor near its root, the steps are cut into pieces that one loop
    goes through side by side, as from a state of 0; a second loop finds the state before each piece, and
    what is left of it at each step is added. At batch 1 and 128 steps 0.13 ms instead of 0.2.
    """

    def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        fc = b.op("Mul", states[0], items[0])
        return [b.op("Add", fc, items[1])], [fc]

    length = g.shape(layer.x)[0]
    steps = _divisor(length) if isinstance(length, int) else 1
    if not isinstance(length, int) or steps < 4:
        return g.scan(turn, [direction.c0], [f, ig], reverse=direction.reverse)[1][0]

    def abreast(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        (c,), (fc,) = turn(b, states[:1], items)
        left = b.op("Mul", states[1], items[0])
        return [c, left], [fc, left]

    def across(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        (c,), _ = turn(b, states, items)
        return [c], [states[0]]

    pieces = length // steps
    cut = [g.reshape(v, pieces, steps, -1, layer.hidden) for v in (f, ig)]
    f, ig = (g.op("Transpose", v, perm=[1, 0, 2, 3]) for v in cut)
    none = g.op("Mul", g.op("Gather", f, g.constant(np.array(0)), axis=0), g.scalar(0.0))
    whole = g.op("Add", none, g.scalar(1.0))
    (c, left), (fc, lefts) = g.scan(abreast, [none, whole], [f, ig], reverse=direction.reverse)
    _, (before,) = g.scan(across, [direction.c0], [left, c], reverse=direction.reverse)
    fc = g.op("Add", fc, g.op("Mul", lefts, before))
    return g.reshape(g.op("Transpose", fc, perm=[1, 0, 2, 3]), length, -1, layer.hidden)


def _divisor(n: int) -> int:
    """The largest divisor of `n` that is not above its root."""
    return next(d for d in range(math.isqrt(n), 0, -1) if n % d == 0)


def _candidate(b: GraphBuilder, i: str, j: str) -> tuple[str, str]:
    """i j, and i g = 2 i j - i."""
    ij = b.op("Mul", i, j)
    return ij, b.op("Sub", b.op("Add", ij, ij), i)


def _slopes(
    b: GraphBuilder, s: str, o: str, ij: str, ig: str, fc: str, h: str, tanh: str, axis: int
) -> tuple[str, str]:
    """`gates` and `cell` of the factors: (1 - s) times g i, tanh(c') o, c f and i j; and o - h' tanh(c')."""
    gates = b.op("Mul", b.op("Sub", b.scalar(1.0), s), b.op("Concat", ig, h, fc, ij, axis=axis))
    return gates, b.op("Sub", o, b.op("Mul", h, tanh))


def _direction(layer: Layer, direction: Direction, factors: _Factors, arriving: Arriving) -> Found:
    g, width, mask = layer.graph, layer.hidden, layer.mask
    quarter = g.floats(_by_gate(width, 4.0))
    recurrent = g.op("Mul", direction.r, quarter)
    sequences = [factors.gates, factors.cell, factors.forget]
    sequences += [arriving.dy] if arriving.dy else []
    sequences += [mask.outside] if mask else []

    def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        dh, dc = states
        d = b.op("Add", dc, b.op("Mul", dh, items[1]))
        v = b.op("Mul", b.op("Concat", d, dh, d, d, axis=1), items[0])
        earlier = product(b, v, recurrent, items[3] if arriving.dy else None)
        if mask:
            earlier = b.op("Add", earlier, b.op("Mul", dh, items[-1]))
        return [earlier, b.op("Mul", d, items[2])], [v]

    (dh0, dc0), (dg,) = g.scan(turn, [arriving.dh, arriving.dc], sequences, reverse=not direction.reverse)
    height, inputs = 4 * width, layer.inputs + 1 + width
    all_ = g.op("Gemm", rows(g, dg, height), rows(g, factors.inputs, inputs), transA=1)
    dw, db, dr = g.split(g.op("Mul", all_, quarter), [layer.inputs, 1, width], 1)
    db = g.reshape(db, -1)
    return Found(
        x=g.op("MatMul", dg, g.op("Mul", direction.w, quarter)),
        w=dw,
        r=dr,
        b=g.op("Concat", db, db, axis=0),
        h0=dh0,
        c0=dc0,
    )


def _weight(layer: Layer, direction: Direction) -> str:
    """What takes x, 1 and h to the gates, (inputs + 1 + hidden, 4 hidden), doubled where j stands for g."""
    g, width = layer.graph, layer.hidden
    bias = g.op("Add", *direction.b) if direction.b else g.floats(np.zeros(4 * width))
    parts = g.op("Concat", direction.w, g.reshape(bias, -1, 1), direction.r, axis=1)
    return g.op("Transpose", g.op("Mul", parts, g.floats(_by_gate(width, 2.0))), perm=[1, 0])


def _by_gate(width: int, last: float) -> NDArray[np.float64]:
    """A column with 1 for the gates i, o and f, and `last` for the fourth."""
    return np.repeat([1.0, 1.0, 1.0, last], width)[:, None]


def _with_one(layer: Layer) -> str:
    """X with a 1 behind each step's values, which the bias takes up."""
    g = layer.graph
    return g.op("Pad", layer.x, g.ints(0, 0, 0, 0, 0, 1), g.scalar(1.0))
