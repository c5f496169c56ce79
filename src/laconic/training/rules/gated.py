"""Gradient rules and forms of the activations y = x c(x), where c rises from 0 to 1: HardSwish, Mish, Gelu.

Their forms keep the gate c, from which the derivative c + x c' takes few nodes more. Milliseconds in comments
are for 0.8M elements on one thread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from onnx import helper

from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only
from laconic.training.rules.indicator import is_within


def hard_swish_form(a: Application, training: Training | None) -> Saved:
    """c = clip(x / 6 + 1/2, 0, 1): two nodes, as onnxruntime makes of a HardSwish too."""
    return _gated(a, a.graph.op("HardSigmoid", a.inputs[0], alpha=1 / 6, beta=0.5))


def hard_swish(a: Application, dys: Gradients) -> Gradients:
    """dx = (c + (c - 1/2)) dy where 0 < c < 1, else c dy; at the kinks 0 and dy, as in PyTorch.

    Written in c alone, so that x need not be kept; in x it takes one node more.
    """
    g, gate = a.graph, a.saved["gate"]
    rise = g.op("Mul", g.op("Sub", gate, g.scalar(0.5)), is_within(g, gate, 0.0, 1.0))
    return (g.op("Mul", only(dys), g.op("Add", gate, rise)),)


def mish_form(a: Application, training: Training | None) -> Saved:
    """c = tanh(log(1 + e^x)) = w / (2 - w) with w = s (2 - s) and s = sigmoid(x).

    2.6 ms, where Softplus and Tanh take 11; nothing in it can overflow.
    """
    g = a.graph
    two = g.scalar(2.0)
    sigmoid = g.op("Sigmoid", a.inputs[0])
    w = g.op("Mul", sigmoid, g.op("Sub", two, sigmoid))
    return {"sigmoid": sigmoid, **_gated(a, g.op("Div", w, g.op("Sub", two, w)))}


def mish(a: Application, dys: Gradients) -> Gradients:
    """dx = (c + x (1 - c^2) sigmoid(x)) dy (Misra, BMVC 2020, section 3)."""
    g, gate = a.graph, a.saved["gate"]
    rise = g.op("Mul", g.op("Sub", g.scalar(1.0), g.op("Mul", gate, gate)), a.saved["sigmoid"])
    return (g.op("Mul", only(dys), g.op("Add", gate, g.op("Mul", a.inputs[0], rise))),)


def gelu_form(a: Application, training: Training | None) -> Saved:
    """The Gelu of opset 20 in operators of opset 18.

    c is the normal distribution function, or its approximation by tanh (Hendrycks & Gimpel, 2016,
    arXiv:1606.08415, section 2).
    """
    g, x = a.graph, a.inputs[0]
    if a.attribute("approximate", "none") == "tanh":
        # (1 + tanh u) / 2 = sigmoid(2 u), with 2 u = x (2 k + 2 k 0.044715 x^2).
        square = g.op("Mul", x, x)
        stretch = g.op("Add", g.op("Mul", square, g.scalar(2 * _K * _CUBIC)), g.scalar(2 * _K))
        return {"square": square, **_gated(a, g.op("Sigmoid", g.op("Mul", x, stretch)))}
    scaled = g.op("Mul", x, g.scalar(math.sqrt(0.5)))
    # (erf + 1) / 2 is one kernel, as nothing is cut off.
    gate = g.op("HardSigmoid", g.op("Erf", scaled), alpha=0.5, beta=0.5)
    if training is not None:
        return {"scaled": scaled, **_gated(a, gate)}
    # Written so, onnxruntime fuses it: 0.5 ms, as x c 1.3. With the derivative, which then needs an Erf of
    # its own, it is the slower way: 3.8 against 3.7.
    risen = g.op("Add", g.op("Erf", g.op("Div", x, g.scalar(math.sqrt(2.0)))), g.scalar(1.0))
    g.append(helper.make_node("Mul", [g.op("Mul", x, risen), g.scalar(0.5)], [a.output]))
    return {"scaled": scaled, "gate": gate}


def gelu(a: Application, dys: Gradients) -> Gradients:
    """dx = (c + x c') dy; c' is the normal density, or c (1 - c) times the inner derivative."""
    g, x, gate = a.graph, a.inputs[0], a.saved["gate"]
    if "square" in a.saved:
        inner = g.op("Mul", a.saved["square"], g.scalar(6 * _K * _CUBIC))
        inner = g.op("Add", inner, g.scalar(2 * _K))
        rest = g.op("Mul", g.op("Sub", g.scalar(1.0), gate), inner)
        rise = g.op("Mul", a.output, rest)
    else:
        # The factor of the density goes into its exponent: x^2 / 2 is the square of what Erf was taken of.
        exponent = g.op("Mul", a.saved["scaled"], a.saved["scaled"])
        exponent = g.op("Sub", g.scalar(-0.5 * math.log(2 * math.pi)), exponent)
        rise = g.op("Mul", x, g.op("Exp", exponent))
    return (g.op("Mul", only(dys), g.op("Add", gate, rise)),)


def _gated(a: Application, gate: str) -> Saved:
    a.graph.append(helper.make_node("Mul", [a.inputs[0], gate], [a.output]))
    return {"gate": gate}


_K = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


RULES: Mapping[str, Rule] = MappingProxyType({"Gelu": gelu, "HardSwish": hard_swish, "Mish": mish})
FORMS: Mapping[str, Form] = MappingProxyType(
    {"Gelu": gelu_form, "HardSwish": hard_swish_form, "Mish": mish_form}
)
