"""Gradient of LSTM (Hochreiter & Schmidhuber, 1997; with the forget gate of Gers et al., 2000).

i, o, f = sigmoid and g = tanh of their gates; c' = f c + i g; h' = o tanh c'.

The way back needs every gate of every step. For few samples onnxruntime's own operator is by far the fastest
way forward, and one product over all steps gives the gates again; for many, what then has to be written and
read again outside the caches costs more than a loop that goes forward and keeps the factors as it goes. So a
training step holds both and chooses by the size of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TypeAlias

import numpy as np
from onnx import NodeProto, helper

from laconic.training.builder import Dim, GraphBuilder
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

MANY = 1024
"""From batch * hidden of this size on, a training step goes forward in a loop.

Measured with 128 steps of 6 values and hidden 64, forward and backward as a ratio to PyTorch 2.13,
onnxruntime's operator against the loop: batch 8: 1.46 against 1.60; batch 16: 1.57 against 1.24; batch 32:
1.71 against 1.17.
"""


_MANY = "many"
"""The name under which the form saves whether it goes in a loop, where that shows at run time only."""


@dataclass(frozen=True, slots=True)
class _Factors:
    """What the way back needs of all steps of one direction.

    With j = sigmoid(2 x) for the gate whose tanh(x) is g = 2 j - 1, all four gates are one sigmoid, and their
    slopes s (1 - s). `gates` (length, batch, 4 hidden), from the loop (length, 4 hidden, batch), is what dc',
    dh', dc', dc' become at the gates i, o, f and j (for j, from the loop, a quarter of it); `cell` what dh'
    adds to dc', o (1 - tanh^2 c'); `forget` what of dc' goes on to dc. `inputs` holds x, 1 and h of each
    step, what the gates are linear in, in the same layout.
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
        direction = layer.directions[k]
        if "gates0" in a.saved:
            factors = _Factors(*(a.saved[f"{name}{k}"] for name in _Factors.__slots__))
            way = _back(layer, direction, factors, arriving, a.saved.get(_MANY, ""), a.wanted[0])
        else:
            way = _rowwise(layer, direction, _again(layer, direction, y), arriving, a.wanted[0])
        return _found(layer, *way)

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
    factors = list(saved.values())
    outputs = [o or g.fresh("unused") for o in (*a.node.output, "", "", "")[:3]]
    if not a.node.output[0]:
        saved[STATES] = outputs[0]
    made = [*outputs, *factors]
    if isinstance(batch, int):
        for name, tensor in zip(made, _in_loops(a, g), strict=True):
            g.append(helper.make_node("Identity", [tensor], [name]))
        return saved
    size = g.op("Gather", g.op("Shape", a.inputs[0]), g.constant(np.array(1)))
    many = g.op("GreaterOrEqual", size, g.constant(np.array(-(-MANY // hidden))))
    saved[_MANY] = many
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
    outputs = [together(b, ys, 1), together(b, hs, 0), together(b, cs, 0)]
    return [*outputs, *(name for f in factors for name in astuple(f))]


def _forward(layer: Layer, direction: Direction) -> tuple[str, str, str, _Factors]:
    """All hidden states, the last one, the last state of the cell, and the factors, samples as columns."""
    g, width = layer.graph, layer.hidden
    weight = _weight(layer, direction)

    def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        h, c = states
        inputs = b.op("Concat", items[0], h, axis=0)
        s = b.op("Sigmoid", b.op("Gemm", weight, inputs))
        i, o, f, j = b.split(s, [width] * 4, 0)
        ij, ig = _candidate(b, i, j)
        fc = b.op("Mul", c, f)
        c = b.op("Add", fc, ig)
        tanh = b.op("Tanh", c)
        h = b.op("Mul", o, tanh)
        gates, cell = _slopes(b, s, o, ij, ig, fc, h, tanh, axis=0)
        return [h, c], [_upright(b, h), gates, cell, f, inputs]

    start = [_upright(g, direction.h0), _upright(g, direction.c0)]
    x = _turned(g, _with_one(layer))
    (h, c), (y, *factors) = g.scan(turn, start, [x], reverse=direction.reverse)
    return y, _upright(g, h), _upright(g, c), _Factors(*factors)


def _turned(g: GraphBuilder, x: str) -> str:
    """The samples of every step as columns instead of rows, or the other way round."""
    return g.op("Transpose", x, perm=[0, 2, 1])


def _upright(g: GraphBuilder, x: str) -> str:
    """The same for one step."""
    return g.op("Transpose", x, perm=[1, 0])


def _again(layer: Layer, direction: Direction, y: str) -> _Factors:
    """The factors from the hidden states `y`: only the cell's state needs a loop."""
    g, width, mask = layer.graph, layer.hidden, layer.mask
    inputs = g.op("Concat", _with_one(layer), states_before(layer, direction, y), axis=2)
    s = g.op("Sigmoid", g.op("MatMul", inputs, _upright(g, _weight(layer, direction))))
    i, o, f, j = g.split(s, [width] * 4, 2)
    ij, ig = _candidate(g, i, j)
    if mask:
        f = g.op("Add", g.op("Mul", f, mask.inside), mask.outside)
        ig = g.op("Mul", ig, mask.inside)

    fc = _kept(g, layer, direction, f, ig)
    tanh = g.op("Tanh", g.op("Add", fc, ig))
    # g = 2 j - 1 with j = sigmoid(2 x): four times. From the loop, where an operation costs more, without.
    double = g.op("Add", ij, ij)
    gates, cell = _slopes(g, s, o, g.op("Add", double, double), ig, fc, y, tanh, axis=2)
    if mask:
        gates, cell = g.op("Mul", gates, mask.inside), g.op("Mul", cell, mask.inside)
    return _Factors(gates, cell, f, inputs)


def _kept(g: GraphBuilder, layer: Layer, direction: Direction, f: str, ig: str) -> str:
    """f c of every step, where c' = f c + `ig`.

    Written out for pieces of a known length, as `_states` says: at batch 1 and 128 steps 0.06 ms, while a
    loop over all steps takes 0.2.
    """
    length = g.shape(layer.x)[0]
    over = [g.op("Unsqueeze", v, g.ints(1)) for v in (f, ig)]
    states = _states(g, direction, layer.hidden, length, *over)
    return g.op("Mul", g.op("Squeeze", states, g.ints(1)), f)


def _states(g: GraphBuilder, direction: Direction, width: int, length: Dim, f: str, ig: str) -> str:
    """The cell's state before each step, where c' = f c + `ig`; all are (length, 1, batch, width).

    Steps are joined by fours (or another small divisor of the length) to steps f = f2 f1, ig = f2 ig1 + ig2
    and so on; the states before those, found in the same way, give the states between. This is written out
    as far as it takes fewer operations than the turns of a loop.
    """
    way = -1 if direction.reverse else 1
    if isinstance(length, int) and length <= _WRITTEN_OUT:
        fs, igs = (g.split(v, [1] * length, 0)[::way] for v in (f, ig))
        first = g.op("Unsqueeze", direction.c0, g.ints(0, 1))
        return g.op("Concat", *_onwards(g, first, fs, igs)[::way], axis=0)
    joined = next((n for n in (4, 2, 3, 5, 7) if isinstance(length, int) and length % n == 0), 0)
    if not isinstance(length, int) or not joined:

        def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
            (c,) = states
            return [b.op("Add", b.op("Mul", c, items[0]), items[1])], [b.op("Identity", c)]

        first = g.op("Unsqueeze", direction.c0, g.ints(0))
        return g.scan(turn, [first], [f, ig], reverse=direction.reverse)[1][0]

    rest = length // joined
    each = [g.reshape(v, rest, joined, 0, width) for v in (f, ig)]
    fs, igs = (g.split(v, [1] * joined, 1)[::way] for v in each)
    left, end = fs[0], igs[0]
    for f, ig in zip(fs[1:], igs[1:], strict=True):
        left, end = g.op("Mul", left, f), g.op("Add", g.op("Mul", end, f), ig)
    first = _states(g, direction, width, rest, left, end)
    states = g.op("Concat", *_onwards(g, first, fs, igs)[::way], axis=1)
    return g.reshape(states, length, 1, 0, width)


_WRITTEN_OUT = 12
"""The longest sequence whose states are written out one after the other, without joining steps first."""


def _onwards(g: GraphBuilder, state: str, fs: Sequence[str], igs: Sequence[str]) -> list[str]:
    """The state before each of several steps, from that before the first."""
    states = [state]
    for f, ig in zip(fs[:-1], igs[:-1], strict=True):
        states.append(g.op("Add", g.op("Mul", states[-1], f), ig))
    return states


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


_Way: TypeAlias = tuple[str, str, str, str]
"""The gradients of all weights in one, (4 hidden, inputs + 1 + hidden), of both states, and of X, if that is
asked for."""


def _back(
    layer: Layer, direction: Direction, factors: _Factors, arriving: Arriving, many: str, wanted: bool
) -> _Way:
    """The way back in the layout of the factors: columns if `many` is true, or if that is left out."""
    g = layer.graph
    if not many:
        return _columnwise(layer, direction, factors, arriving, wanted)
    made = [g.fresh(n) for n in ("dall", "dh0", "dc0", "dx")[: 4 if wanted else 3]]
    g.either(
        many,
        lambda b: _columnwise(replace(layer, graph=b), direction, factors, arriving, wanted)[: len(made)],
        lambda b: _rowwise(replace(layer, graph=b), direction, factors, arriving, wanted)[: len(made)],
        made,
    )
    all_, dh0, dc0, dx = [*made, ""][:4]
    return all_, dh0, dc0, dx


def _rowwise(layer: Layer, direction: Direction, factors: _Factors, arriving: Arriving, wanted: bool) -> _Way:
    """One product for all weights, after the loop."""
    g, mask, height = layer.graph, layer.mask, 4 * layer.hidden
    sequences = [factors.gates, factors.cell, factors.forget]
    sequences += [arriving.dy] if arriving.dy else []
    sequences += [mask.outside] if mask else []

    def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        dh, dc = states
        d = b.op("Add", dc, b.op("Mul", dh, items[1]))
        v = b.op("Mul", b.op("Concat", d, dh, d, d, axis=1), items[0])
        earlier = product(b, v, direction.r, items[3] if arriving.dy else None)
        if mask:
            earlier = b.op("Add", earlier, b.op("Mul", dh, items[-1]))
        return [earlier, b.op("Mul", d, items[2])], [v]

    (dh0, dc0), (dg,) = g.scan(turn, [arriving.dh, arriving.dc], sequences, reverse=not direction.reverse)
    inputs = rows(g, factors.inputs, layer.inputs + 1 + layer.hidden)
    dx = g.op("MatMul", dg, direction.w) if wanted else ""
    return g.op("Gemm", rows(g, dg, height), inputs, transA=1), dh0, dc0, dx


def _columnwise(
    layer: Layer, direction: Direction, factors: _Factors, arriving: Arriving, wanted: bool
) -> _Way:
    """From factors with the samples as columns, and without a mask; the loop sums up what the weights get.

    Measured at batch 32, hidden 64: to turn all that arrives at the gates takes 0.9 ms, while the sum in the
    loop takes 0.2 ms more than one product over all steps.
    """
    g, height, width = layer.graph, 4 * layer.hidden, layer.inputs + 1 + layer.hidden
    recurrent = _upright(g, _fourth_gate(g, direction.r, 4.0, layer.hidden, layer.hidden))
    sequences = [factors.gates, factors.cell, factors.forget, factors.inputs]
    sequences += [_turned(g, arriving.dy)] if arriving.dy else []

    def turn(b: GraphBuilder, states: Sequence[str], items: Sequence[str]) -> tuple[list[str], list[str]]:
        dh, dc, all_ = states
        d = b.op("Add", dc, b.op("Mul", dh, items[1]))
        v = b.op("Mul", b.op("Concat", d, dh, d, d, axis=0), items[0])
        earlier = product(b, recurrent, v, items[4] if arriving.dy else None)
        all_ = b.op("Gemm", v, items[3], all_, transB=1)
        return [earlier, b.op("Mul", d, items[2]), all_], [v] if wanted else []

    start = [_upright(g, arriving.dh), _upright(g, arriving.dc), g.floats(np.zeros((height, width)))]
    (dh0, dc0, all_), dg = g.scan(turn, start, sequences, reverse=not direction.reverse)
    all_ = _fourth_gate(g, all_, 4.0, layer.hidden, width)
    dx = ""
    if wanted:
        to_gates = _fourth_gate(g, direction.w, 4.0, layer.hidden, layer.inputs)
        dx = g.op("MatMul", _turned(g, dg[0]), to_gates)
    return all_, _upright(g, dh0), _upright(g, dc0), dx


def _found(layer: Layer, all_: str, dh0: str, dc0: str, dx: str) -> Found:
    g = layer.graph
    dw, db, dr = g.split(all_, [layer.inputs, 1, layer.hidden], 1)
    db = g.reshape(db, -1)
    return Found(
        x=dx or None,
        w=dw,
        r=dr,
        b=g.op("Concat", db, db, axis=0),
        h0=dh0,
        c0=dc0,
    )


def _weight(layer: Layer, direction: Direction) -> str:
    """What takes x, 1 and h to the gates, (4 hidden, inputs + 1 + hidden), doubled where j stands for g."""
    g, width = layer.graph, layer.hidden
    bias = g.op("Add", *direction.b) if direction.b else g.floats(np.zeros(4 * width))
    parts = g.op("Concat", direction.w, g.reshape(bias, -1, 1), direction.r, axis=1)
    return _fourth_gate(g, parts, 2.0, width, layer.inputs + 1 + width)


def _fourth_gate(g: GraphBuilder, x: str, times: float, width: int, columns: int) -> str:
    """(4 width, columns) with the rows of the fourth gate multiplied.

    By one number for each gate, since one for each row takes four times as long: 0.01 ms for hidden 64.
    """
    factors = g.floats(np.array([[1.0], [1.0], [1.0], [times]]))
    return g.reshape(g.op("Mul", g.reshape(x, 4, width * columns), factors), 4 * width, columns)


def _with_one(layer: Layer) -> str:
    """X with a 1 behind each step's values, which the bias takes up."""
    g = layer.graph
    return g.op("Pad", layer.x, g.ints(0, 0, 0, 0, 0, 1), g.scalar(1.0))
