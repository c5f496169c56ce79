"""Finds formulas that exporters write out in elementary operators and puts the one operator in their place.

The gradient of a composite takes a third to a half of the passes over the data that the gradients of its
parts take. Known are Gelu (exact, and by tanh), Sigmoid, HardSigmoid, HardSwish, Mish, Swish and
LayerNormalization.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from laconic.training.algebra import Expansion, Polynomial, Window, attribute, close, same
from laconic.training.builder import Shape, TensorType

_REACH = 5
"""How many nodes of arithmetic a written-out activation has before, or after, its one other function."""

_TANH = math.sqrt(2 / math.pi)


@dataclass(frozen=True, slots=True)
class _Found:
    """A formula: the nodes that it takes away, of which the last makes its result, and what comes instead."""

    region: frozenset[int]
    instead: tuple[NodeProto, ...]


def recognised(
    nodes: Sequence[NodeProto],
    types: Mapping[str, TensorType],
    constants: Mapping[str, NDArray[Any]],
    weights: Collection[str] = (),
    kept: Collection[str] = (),
) -> list[NodeProto]:
    """The nodes with written-out composites replaced; results keep their names.

    `nodes` are those of opset 18 with shapes and constants known. `weights` are the tensors that may train,
    which are never taken for a formula's constants; `kept` are tensors that must stay, such as the graph's
    outputs. A formula whose inner tensors have another use stays as it is.
    """
    window = Window(nodes, {n: a for n, a in constants.items() if n not in weights})
    search = _Search(window, types, frozenset(kept))
    gone: set[int] = set()
    placed: dict[int, tuple[NodeProto, ...]] = {}
    for i, node in enumerate(nodes):
        find = _ANCHORS.get(node.op_type)
        found = find(search, i) if find is not None and node.domain in ("", "ai.onnx") else None
        if found is None or found.region & gone:
            continue
        last = max(found.region)
        gone |= found.region
        placed[last] = found.instead
        # What follows must not look into what is no longer there.
        window.makers.pop(str(nodes[last].output[0]))
    result: list[NodeProto] = []
    for i, node in enumerate(nodes):
        result.extend(placed.get(i, () if i in gone else (node,)))
    return result


@dataclass(frozen=True, slots=True)
class _Search:
    window: Window
    types: Mapping[str, TensorType]
    kept: frozenset[str]

    def shape(self, name: str) -> Shape | None:
        known = self.types.get(name)
        return None if known is None else known.shape

    def variables(self, name: str) -> list[str]:
        """What a formula's inner argument could be a formula of, each once, the nearest first."""
        return list(dict.fromkeys(self.window.above(name, _REACH)))

    def closed(self, region: Collection[int]) -> bool:
        """Whether nothing but the region's last result is used outside it."""
        last = max(region)
        inner = {o for i in region if i != last for o in self.window.nodes[i].output if o}
        return not inner & self.kept and all(
            u in region for name in inner for u in self.window.users.get(name, ())
        )

    def result(
        self, anchor: int, x: str, before: Collection[int], due: Sequence[Polynomial]
    ) -> tuple[frozenset[int], int] | None:
        """The last node whose result is one of the polynomials `due` in "x" and "f", the anchor's output.

        The whole region with the nodes `before` the anchor, and which of `due` it is.
        """
        window = self.window
        out = str(window.nodes[anchor].output[0])
        for root in sorted(window.below(out, _REACH), reverse=True):
            expansion = Expansion(window, {x: "x", out: "f"})
            name = str(window.nodes[root].output[0])
            polynomial = expansion.of(name)
            which = next((k for k, p in enumerate(due) if same(polynomial, p)), None)
            region = frozenset({anchor, *before, *expansion.seen})
            if which is None or self.shape(name) != self.shape(x) or max(region) != root:
                continue
            if self.closed(region):
                return region, which
        return None

    def composite(
        self, op_type: str, x: str, region: Collection[int], **attributes: Any
    ) -> tuple[NodeProto, ...]:
        """The node that takes the region's place, under the name of the region's last."""
        last = self.window.nodes[max(region)]
        return (helper.make_node(op_type, [x], [last.output[0]], name=last.name, **attributes),)


_GATED: Polynomial = {("f", "x"): 1.0}


def _gelu(s: _Search, anchor: int, argument: Polynomial, kind: str) -> _Found | None:
    """x (1 + f) / 2, where the polynomial `argument` in x goes into the anchor f."""
    inner = str(s.window.nodes[anchor].input[0])
    for x in s.variables(inner):
        expansion = Expansion(s.window, {x: "x"})
        if not same(expansion.of(inner), argument):
            continue
        found = s.result(anchor, x, expansion.seen, [{("x",): 0.5, ("f", "x"): 0.5}])
        if found is not None:
            return _Found(found[0], s.composite("Gelu", x, found[0], approximate=kind))
    return None


def _exact_gelu(s: _Search, anchor: int) -> _Found | None:
    return _gelu(s, anchor, {("x",): math.sqrt(0.5)}, "none")


def _tanh(s: _Search, anchor: int) -> _Found | None:
    inner = str(s.window.nodes[anchor].input[0])
    softplus = s.window.maker(inner, "Softplus")
    if softplus is not None:
        return _gate(s, anchor, str(softplus.input[0]), "Mish", [s.window.makers[inner]])
    return _gelu(s, anchor, {("x",): _TANH, ("x", "x", "x"): 0.044715 * _TANH}, "tanh")


def _sigmoid(s: _Search, anchor: int) -> _Found | None:
    return _gate(s, anchor, str(s.window.nodes[anchor].input[0]), "Swish", [])


def _logistic(s: _Search, anchor: int) -> _Found | None:
    """1 / (1 + exp(-x)), whose gradient as written is inf times 0 where x is far below zero."""
    window, node = s.window, s.window.nodes[anchor]
    inner, f = str(node.input[0]), str(node.output[0])
    for x in s.variables(inner):
        argument = Expansion(window, {x: "x"})
        if not same(argument.of(inner), {("x",): -1.0}):
            continue
        for sum_ in window.below(f, 2):
            total = str(window.nodes[sum_].output[0])
            plus_one = Expansion(window, {f: "f"})
            users = window.users.get(total, [])
            if len(users) != 1 or not same(plus_one.of(total), {("f",): 1.0, (): 1.0}):
                continue
            last = window.nodes[users[0]]
            inverse = last.op_type == "Reciprocal" or (
                last.op_type == "Div" and last.input[1] == total and window.number(str(last.input[0])) == 1
            )
            region = frozenset({anchor, users[0], *argument.seen, *plus_one.seen})
            if inverse and max(region) == users[0] and s.closed(region):
                return _Found(region, s.composite("Sigmoid", x, region))
    return None


def _hard_sigmoid(s: _Search, anchor: int) -> _Found | None:
    node = s.window.nodes[anchor]
    if not close(attribute(node, "alpha", 0.2), 1 / 6) or not close(attribute(node, "beta", 0.5), 0.5):
        return None
    return _gate(s, anchor, str(node.input[0]), "HardSwish", [])


def _gate(s: _Search, anchor: int, x: str, op_type: str, before: Collection[int]) -> _Found | None:
    """x f, where the anchor f is a function of x."""
    found = s.result(anchor, x, before, [_GATED])
    return None if found is None else _Found(found[0], s.composite(op_type, x, found[0]))


def _clip(s: _Search, anchor: int) -> _Found | None:
    """x clip(x + 3, 0, 6) / 6 and clip(a x + b, 0, h) / h, as ReLU6 is written."""
    inputs = [*map(str, s.window.nodes[anchor].input), "", ""]
    low, high = s.window.number(inputs[1]), s.window.number(inputs[2])
    if low != 0 or not high or high < 0:
        return None
    gates: list[_Found] = []
    for x in s.variables(inputs[0]):
        expansion = Expansion(s.window, {x: "x"})
        line = expansion.of(inputs[0])
        if line is None or not line.keys() <= {("x",), ()}:
            continue
        slope, rise = line.get(("x",), 0.0) / high, line.get((), 0.0) / high
        found = s.result(anchor, x, expansion.seen, [{("f", "x"): 1 / high}, {("f",): 1 / high}])
        if found is not None and found[1] == 0 and close(slope, 1 / 6) and close(rise, 0.5):
            return _Found(found[0], s.composite("HardSwish", x, found[0]))
        if found is not None and found[1] == 1 and slope > 0:
            settings = {"alpha": slope, "beta": rise}
            gates.append(_Found(found[0], s.composite("HardSigmoid", x, found[0], **settings)))
    return max(gates, key=lambda f: len(f.region), default=None)


def _layer_normalization(s: _Search, anchor: int) -> _Found | None:
    """scale (x - mean) / sqrt(var + epsilon) + bias over the last axes, anchored at its root.

    Scale, or bias, may be missing. The difference may be taken once or twice, or multiplied out.
    """
    window, node = s.window, s.window.nodes[anchor]
    shifted, root = str(node.input[0]), str(node.output[0])
    if node.op_type == "Pow" and window.number(str(node.input[1])) != -0.5:
        return None
    offset = Expansion(window, {})
    moments = _moments(s, offset.of(shifted))
    if moments is None:
        return None
    x, mean, var, axes, epsilon, squares = moments
    shape = s.shape(x)
    assert shape is not None  # or its axes would be unknown
    before = {anchor, window.makers[var], window.makers[mean], *offset.seen, *squares}
    at = {x: "x", mean: "m"} | ({root: "r"} if node.op_type == "Pow" else {})
    inverse = {root: "r"} if node.op_type == "Sqrt" else {}
    for last in sorted(window.below(root, 2 * _REACH), reverse=True):
        expansion = Expansion(window, at, inverse)
        affine = _affine(expansion.of(str(window.nodes[last].output[0])))
        region = frozenset(before | expansion.seen)
        if affine is None or max(region) != last or not s.closed(region):
            continue
        if any(s.shape(n) != shape[axes[0] :] for n in affine if n):
            continue
        return _normalisation(s, region, x, axes[0], epsilon, *affine)
    return None


def _moments(
    s: _Search, shifted: Polynomial | None
) -> tuple[str, str, str, list[int], float, set[int]] | None:
    """What var + epsilon is made of: x, its mean, the mean that makes the variance, axes, epsilon, nodes.

    The variance is the mean of the squared difference, or the mean of the square less the squared mean.
    """
    terms = dict(shifted or {})
    epsilon = terms.pop((), 0.0)
    if not 0 < epsilon < 1:
        return None
    var = next((m[0] for m, c in terms.items() if len(m) == 1 and close(c, 1.0)), "")
    node = s.window.maker(var, "ReduceMean")
    axes = None if node is None else _axes(s, node)
    if node is None or axes is None:
        return None
    squares = str(node.input[0])
    raw = next((m[0] for m in terms if len(m) == 2), "")
    for mean in [raw] if raw else s.window.above(squares, 2):
        reduced = s.window.maker(mean, "ReduceMean")
        if reduced is None or _axes(s, reduced) != axes:
            continue
        x = str(reduced.input[0])
        due: Polynomial = {("x", "x"): 1.0}
        if not raw:
            due |= {("m", "x"): -2.0, ("m", "m"): 1.0}
        square = Expansion(s.window, {x: "x", mean: "m"})
        whole: Polynomial = {(var,): 1.0, (mean, mean): -1.0} if raw else {(var,): 1.0}
        if same(square.of(squares), due) and same(terms, whole):
            return x, mean, var, axes, epsilon, square.seen
    return None


def _affine(found: Polynomial | None) -> tuple[str, str] | None:
    """The names of scale and bias (empty: none) of scale (x - m) r + bias."""
    terms = dict(found or {})
    pair = [m for m in terms if "x" in m and "r" in m]
    if len(pair) != 1:
        return None
    rest = list(pair[0])
    rest.remove("x")
    rest.remove("r")
    scale = rest[0] if rest else ""
    due: Polynomial = {("x", "r", *rest): 1.0, ("m", "r", *rest): -1.0}
    others = [m for m in terms if m and not set(m) & {"x", "m", "r"}]
    bias = others[0][0] if others and len(others[0]) == 1 else ""
    if bias:
        due[(bias,)] = 1.0
    return (scale, bias) if len(rest) < 2 and same(terms, due) else None


def _normalisation(
    s: _Search, region: frozenset[int], x: str, axis: int, epsilon: float, scale: str, bias: str
) -> _Found | None:
    last = s.window.nodes[max(region)]
    shape = (s.shape(x) or ())[axis:]
    before: list[NodeProto] = []
    if not scale:
        if any(not isinstance(d, int) for d in shape):
            return None
        scale = f"{last.output[0]}/scale"
        ones = numpy_helper.from_array(np.ones([int(d) for d in shape], np.float32), scale)
        before.append(helper.make_node("Constant", [], [scale], value=ones))
    inputs = [x, scale, bias] if bias else [x, scale]
    settings: dict[str, Any] = {"axis": axis, "epsilon": epsilon}
    node = helper.make_node("LayerNormalization", inputs, [last.output[0]], name=last.name, **settings)
    return _Found(region, (*before, node))


def _axes(s: _Search, node: NodeProto) -> list[int] | None:
    """The axes of a ReduceMean that keeps them, if they are the last ones."""
    shape = s.shape(str(node.input[0]))
    axes = attribute(node, "axes")
    if len(node.input) > 1 and node.input[1]:
        axes = s.window.constants.get(str(node.input[1]))
    if shape is None or axes is None or not attribute(node, "keepdims", 1):
        return None
    found = sorted(int(a) % len(shape) for a in axes)
    return found if found and found == list(range(found[0], len(shape))) else None


_ANCHORS = {
    "Clip": _clip,
    "Erf": _exact_gelu,
    "Exp": _logistic,
    "HardSigmoid": _hard_sigmoid,
    "Pow": _layer_normalization,
    "Sigmoid": _sigmoid,
    "Sqrt": _layer_normalization,
    "Tanh": _tanh,
}
"""The one operator that tells a formula, and how to look around it."""
