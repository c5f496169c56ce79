"""What RNN, GRU and LSTM have in common: their inputs direction by direction, and the way back.

Shapes: X (length, batch, inputs), Y (length, directions, batch, hidden), states (directions, batch, hidden),
weights (directions, gates * hidden, inputs or hidden), bias (directions, 2 * gates * hidden). Length and
batch may both be known at run time only. Names in this package: a tensor of one direction has lost its axis
of directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from onnx import NodeProto, TensorProto

from laconic.errors import ModelError
from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Saved, Training
from laconic.training.rules.recurrent.last_step import last_step

STATES = "states"
"""The name under which a form saves all hidden states (the output Y) where the node has no use for them."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Which steps lie within a sequence's own length: `inside` is 1 there and 0 after it, `outside` 1 less
    that; both (length, batch, 1)."""

    inside: str
    outside: str


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a layer, reading from the first step to the last, or in `reverse`.

    `b` is the bias of the input and of the recurrence, (gates * hidden) each; None for none.
    """

    reverse: bool
    w: str
    r: str
    b: tuple[str, str] | None
    h0: str
    c0: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A recurrent node as its rule sees it; `directions` has one or two entries."""

    graph: GraphBuilder
    x: str
    inputs: int
    hidden: int
    gates: int
    directions: tuple[Direction, ...]
    mask: Mask | None


@dataclass(frozen=True, slots=True)
class Arriving:
    """The gradients that reach one direction from outside.

    `dh` arrives at the state after its last step, whether through Y or Y_h; `dy` holds for each step what
    arrives through Y at the state *before* it, None if nothing does; `dc` is as `dh`, for the cell's state.
    """

    dh: str
    dc: str
    dy: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """The gradients of one direction. `x` is (length, batch, inputs), None where nobody asks; the rest is
    shaped as in `Direction`, `b` for both biases, one after the other."""

    x: str | None
    w: str
    r: str
    b: str
    h0: str
    c0: str = ""


Cell: TypeAlias = Callable[[int, Layer, str, Arriving], Found]
"""`cell(k, layer, y, arriving)`: the way back through direction k, whose states after each step are `y`."""


def read(a: Application, gates: int, graph: GraphBuilder | None = None) -> Layer:
    """Take a node apart, in its own graph or a `graph` within that.

    Raises `ModelError` for what no rule covers.
    """
    g = graph or a.graph
    refuse_exotic(a)
    x, w, r, b, lengths, h0, c0 = (list(a.inputs) + [""] * 8)[:7]
    hidden = a.graph.static(r)[2]
    count = a.graph.static(r)[0]
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    reverse = ways[a.attribute("direction", "forward")]
    if len(reverse) != count:
        raise ModelError(f"weights of {a.node.op_type} {a.output!r}", value=count, limit=len(reverse))
    none = zeros(g, x, hidden)
    biases = [g.split(p, [gates * hidden] * 2, 0) for p in apart(g, b, count, 0)] if b else []
    return Layer(
        g,
        x,
        a.graph.static(w)[2],
        hidden,
        gates,
        tuple(
            Direction(back, w_k, r_k, (biases[k][0], biases[k][1]) if b else None, h_k, c_k)
            for k, (back, w_k, r_k, h_k, c_k) in enumerate(
                zip(
                    reverse,
                    apart(g, w, count, 0),
                    apart(g, r, count, 0),
                    apart(g, h0, count, 0) if h0 else [none] * count,
                    apart(g, c0, count, 0) if c0 else [none] * count,
                    strict=True,
                )
            )
        ),
        _mask(g, x, lengths) if lengths else None,
    )


def refuse_exotic(a: Application) -> None:
    """Raise `ModelError` for attributes that no exporter writes today and no rule covers."""
    where = f"of {a.node.op_type} {next(filter(None, a.node.output), '')!r}"
    if a.attribute("layout", 0):
        raise ModelError(
            f"layout {where}", value=1, limit=0, remedy="export with the length first (layout 0)"
        )
    for name in ("clip", "input_forget"):
        if a.attribute(name, 0):
            raise ModelError(f"{name} {where}", value=a.attribute(name), remedy=f"export without {name}")
    if len(a.inputs) > 7 and a.inputs[7]:
        raise ModelError(f"peephole weights {where}", value=a.inputs[7], remedy="export without peepholes")


def activations(a: Application, default: Sequence[str], allowed: Sequence[str]) -> list[str]:
    """The names of the activations, those of all directions in a row; raises `ModelError` for others.

    `default` is for one direction, `allowed` what each of its places may hold.
    """
    names = [n.decode() for n in a.attribute("activations", [])]
    if not names:
        names = list(default) * (2 if a.attribute("direction", "forward") == "bidirectional" else 1)
    for name in names:
        if name.lower() not in (n.lower() for n in allowed):
            raise ModelError(
                f"activation of {a.node.op_type} {next(filter(None, a.node.output), '')!r}",
                value=name,
                limit=list(allowed),
                remedy="export the model with the operator's usual activations",
            )
    return [name.capitalize() for name in names]


def default_activations(a: Application, default: Sequence[str]) -> None:
    """Raise `ModelError` unless the activations are the operator's own."""
    names = [n.lower() for n in activations(a, default, sorted(set(default)))]
    usual = [n.lower() for n in default]
    if names != usual * (len(names) // len(usual)):
        raise ModelError(
            f"activations of {a.node.op_type} {next(filter(None, a.node.output), '')!r}",
            value=names,
            limit=list(default),
            remedy="export the model with the operator's usual activations",
        )


def with_states(a: Application, training: Training | None) -> Saved:
    """Run the node as it is, but let it give all its hidden states: the way back starts from them."""
    node = NodeProto()
    node.CopyFrom(a.node)
    saved = {}
    if not node.output[0]:
        node.output[0] = saved[STATES] = a.graph.fresh("states")
    a.graph.append(node)
    return saved


def backward(a: Application, dys: Gradients, layer: Layer, cell: Cell) -> Gradients:
    """Gradients of all inputs, from those of one direction after the other."""
    g, count = a.graph, len(layer.directions)
    dy, dh, dc = (*dys, None, None, None)[:3]
    if dy and count == 1 and not layer.directions[0].reverse and not layer.mask:
        last = last_step(g, dy)
        if last is not None:
            last = g.op("Unsqueeze", g.reshape(last, -1, layer.hidden), g.ints(0))
            dy, dh = None, g.op("Add", dh, last) if dh else last
    states = apart(g, a.node.output[0] or a.saved[STATES], count, 1)
    none = zeros(g, layer.x, layer.hidden)
    dys_k: Sequence[str | None] = apart(g, dy, count, 1) if dy else [None] * count
    dhs = apart(g, dh, count, 0) if dh else [none] * count
    dcs = apart(g, dc, count, 0) if dc else [none] * count
    found = [
        cell(k, layer, states[k], _arriving(layer, direction.reverse, dys_k[k], dhs[k], dcs[k], bool(dh)))
        for k, direction in enumerate(layer.directions)
    ]
    dxs = [f.x for f in found if f.x]
    dx = g.op("Add", *dxs) if len(dxs) == 2 else next(iter(dxs), None)
    results = [
        dx,
        together(g, [f.w for f in found], 0),
        together(g, [f.r for f in found], 0),
        together(g, [f.b for f in found], 0),
        None,
        together(g, [f.h0 for f in found], 0),
        together(g, [f.c0 for f in found], 0) if found[0].c0 else None,
        None,
    ]
    return tuple(results[: len(a.inputs)])


def _arriving(layer: Layer, reverse: bool, dy: str | None, dh: str, dc: str, outside: bool) -> Arriving:
    g = layer.graph
    if dy is None:
        return Arriving(dh, dc, None)
    if layer.mask:
        dy = g.op("Mul", dy, layer.mask.inside)
    last = g.op("Gather", dy, g.constant(np.array(0 if reverse else -1)), axis=0)
    none = g.op("Unsqueeze", zeros(g, layer.x, layer.hidden), g.ints(0))
    return Arriving(g.op("Add", dh, last) if outside else last, dc, before(g, none, dy, reverse))


def product(b: GraphBuilder, x: str, w: str, onto: str | None = None) -> str:
    """x w, added to `onto`.

    With one row, Gemm takes 0.15 microseconds less than MatMul: 3 % of a turn of LSTM's loop.
    """
    return b.op("Gemm", x, w, *([onto] if onto else []))


def before(g: GraphBuilder, first: str, items: str, reverse: bool) -> str:
    """For each step what `items` holds at the step before it: `first`, (1, ...), and then the items."""
    if reverse:
        rest = g.op("Slice", items, g.ints(1), g.ints(np.iinfo(np.int64).max), g.ints(0))
        return g.op("Concat", rest, first, axis=0)
    rest = g.op("Slice", items, g.ints(0), g.ints(-1), g.ints(0))
    return g.op("Concat", first, rest, axis=0)


def states_before(layer: Layer, direction: Direction, y: str) -> str:
    """The hidden state that each step starts from, (length, batch, hidden)."""
    g = layer.graph
    first = g.op("Unsqueeze", direction.h0, g.ints(0))
    if layer.mask:
        # Y is zero after a sequence's end, where a reverse direction still holds its first state.
        y = g.op("Add", y, g.op("Mul", layer.mask.outside, direction.h0))
    return before(g, first, y, direction.reverse)


def rows(g: GraphBuilder, x: str, width: int) -> str:
    """All steps of all samples one under the other."""
    return g.reshape(x, -1, width)


def contracted(g: GraphBuilder, dg: str, x: str, height: int, width: int) -> str:
    """The gradient of a weight that takes `x` to what has the gradient `dg`."""
    return g.op("Gemm", rows(g, dg, height), rows(g, x, width), transA=1)


def summed(g: GraphBuilder, dg: str) -> str:
    """The gradient of a bias."""
    return g.op("ReduceSum", dg, g.ints(0, 1), keepdims=0)


def apart(g: GraphBuilder, x: str, count: int, axis: int) -> list[str]:
    """The tensors that lie along an axis of length `count`."""
    return [g.op("Squeeze", p, g.ints(axis)) for p in g.split(x, [1] * count, axis)]


def together(g: GraphBuilder, parts: Sequence[str], axis: int) -> str:
    """The opposite of `apart`."""
    made = [g.op("Unsqueeze", p, g.ints(axis)) for p in parts]
    return made[0] if len(made) == 1 else g.op("Concat", *made, axis=axis)


def zeros(g: GraphBuilder, x: str, hidden: int) -> str:
    """A state of zeros, (batch, hidden), for the batch of X."""
    batch = g.shape(x)[1]
    if isinstance(batch, int):
        return g.floats(np.zeros((batch, hidden)))
    size = g.op("Concat", g.op("Shape", x, start=1, end=2), g.ints(hidden), axis=0)
    return g.op("Expand", g.scalar(0.0), size)


def _mask(g: GraphBuilder, x: str, lengths: str) -> Mask:
    zero, one = (g.constant(np.array(v)) for v in (0, 1))
    length = g.op("Gather", g.op("Shape", x), zero)
    steps = g.op("Unsqueeze", g.op("Range", zero, length, one), g.ints(1))
    inside = g.op("Less", steps, g.op("Cast", lengths, to=TensorProto.INT64))
    real = g.op("Unsqueeze", g.to_real(inside), g.ints(2))
    return Mask(real, g.op("Sub", g.scalar(1.0), real))
