"""Gradient rules of the activation functions that are no product (those are in `gated`).

Where y determines the derivative it is used rather than x: x need not be kept, and onnxruntime may fuse the
activation into the convolution before it. Milliseconds in comments are for 0.8M elements on one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from onnx import helper

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only
from laconic.training.rules.indicator import is_positive, is_within

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""What the standard gives a Selu that names no others (Klambauer et al., NeurIPS 2017, section 2)."""


def relu(a: Application, dys: Gradients) -> Gradients:
    """dx = dy where y > 0; the derivative at 0 is 0, as in PyTorch."""
    return (a.graph.op("Mul", only(dys), is_positive(a.graph, a.output)),)


def leaky_relu(a: Application, dys: Gradients) -> Gradients:
    """dx = dy where x > 0, else alpha dy; at 0 alpha dy, as in PyTorch."""
    g, alpha = a.graph, float(a.attribute("alpha", 0.01))
    if 0.0 <= alpha <= 1.0:
        # Clip 1.2 ms, Max 1.4, Mul and Add 1.7, Where 8.7.
        slope = g.op("Clip", is_positive(g, a.output), g.scalar(alpha))
    else:
        slope = g.op("Mul", is_positive(g, a.inputs[0]), g.scalar(1.0 - alpha))
        slope = g.op("Add", slope, g.scalar(alpha))
    return (g.op("Mul", only(dys), slope),)


def prelu_form(a: Application, training: Training | None) -> Saved:
    """y = max(x, 0) + slope min(x, 0).

    2.0 ms, where onnxruntime's own PRelu takes 9.3 with one slope a channel and 4.2 with a single one.
    """
    g, (x, slope) = a.graph, a.inputs
    negative = g.op("Min", x, g.scalar(0.0))
    parts = [g.op("Relu", x), g.op("Mul", negative, slope)]
    g.append(helper.make_node("Add", parts, [a.output]))
    return {"negative": negative}


def prelu(a: Application, dys: Gradients) -> Gradients:
    """dx = dy where x > 0, else slope dy (so at 0, as in PyTorch); d slope = min(x, 0) dy, summed."""
    g, (x, slope), dy = a.graph, a.inputs, only(dys)
    dx = dslope = None
    if a.wanted[0]:
        rise = g.op("Mul", is_positive(g, x), g.op("Sub", g.scalar(1.0), slope))
        dx = g.op("Mul", dy, g.op("Add", rise, slope))
    if a.wanted[1]:
        dslope = g.sum_to(g.op("Mul", dy, a.saved["negative"]), a.output_shape, slope)
    return dx, dslope


def elu(a: Application, dys: Gradients) -> Gradients:
    """dx = dy where x > 0, else (y + alpha) dy; at 0 alpha dy, as in PyTorch."""
    g, alpha = a.graph, float(a.attribute("alpha", 1.0))
    if alpha == 1.0:
        # clip(y + 1, 0, 1) is one kernel: 0.60 ms, by Add and Min 0.86.
        slope = g.op("HardSigmoid", a.output, alpha=1.0, beta=1.0)
    elif alpha >= 0.0:
        slope = _bent(g, a.output, above=1.0, offset=alpha)
    else:  # the sign of y does not tell that of x
        slope = _bent_by_input(g, a.inputs[0], alpha)
    return (g.op("Mul", only(dys), slope),)


def selu(a: Application, dys: Gradients) -> Gradients:
    """dx = gamma dy where x > 0, else (y + gamma alpha) dy, at 0 too, as in PyTorch."""
    g = a.graph
    alpha, gamma = float(a.attribute("alpha", SELU_ALPHA)), float(a.attribute("gamma", SELU_GAMMA))
    if alpha >= 0.0 and gamma > 0.0:
        slope = _bent(g, a.output, above=gamma, offset=gamma * alpha)
    else:
        slope = g.op("Mul", _bent_by_input(g, a.inputs[0], alpha), g.scalar(gamma))
    return (g.op("Mul", only(dys), slope),)


def celu_form(a: Application, training: Training | None) -> Saved:
    """y = alpha Elu(x / alpha) where alpha > 0: no slower than Celu, which at opset 18 knows float32 only."""
    g, alpha = a.graph, float(a.attribute("alpha", 1.0))
    x = a.inputs[0]
    if alpha < 0.0:
        g.append(a.node)
    elif alpha == 1.0:
        g.append(helper.make_node("Elu", [x], [a.output]))
    else:
        unit = g.op("Elu", g.op("Div", x, g.scalar(alpha)))
        g.append(helper.make_node("Mul", [unit, g.scalar(alpha)], [a.output]))
    return {}


def celu(a: Application, dys: Gradients) -> Gradients:
    """dx = dy where x > 0, else exp(x / alpha) dy = (y / alpha + 1) dy."""
    g, alpha = a.graph, float(a.attribute("alpha", 1.0))
    if alpha > 0.0:
        slope = g.op("HardSigmoid", a.output, alpha=1.0 / alpha, beta=1.0)
    else:
        straight = g.op("Add", g.op("Div", a.output, g.scalar(alpha)), g.scalar(1.0))
        slope = g.op("Max", straight, g.scalar(1.0))
    return (g.op("Mul", only(dys), slope),)


def sigmoid(a: Application, dys: Gradients) -> Gradients:
    """dx = y (1 - y) dy."""
    g, y = a.graph, a.output
    return (g.op("Mul", only(dys), g.op("Mul", y, g.op("Sub", g.scalar(1.0), y))),)


def tanh(a: Application, dys: Gradients) -> Gradients:
    """dx = (1 - y^2) dy."""
    g, y = a.graph, a.output
    # 0.87 ms; dy - dy y y has as many nodes and takes 1.07.
    return (g.op("Mul", only(dys), g.op("Sub", g.scalar(1.0), g.op("Mul", y, y))),)


def hard_sigmoid(a: Application, dys: Gradients) -> Gradients:
    """dx = alpha dy where 0 < y < 1; 0 at both kinks, as in PyTorch."""
    g, alpha = a.graph, float(a.attribute("alpha", 0.2))
    slope = g.op("Mul", is_within(g, a.output, 0.0, 1.0), g.scalar(alpha))
    return (g.op("Mul", only(dys), slope),)


def softplus(a: Application, dys: Gradients) -> Gradients:
    """dx = sigmoid(x) dy: it cannot overflow."""
    return (a.graph.op("Mul", only(dys), a.graph.op("Sigmoid", a.inputs[0])),)


def softsign(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / (1 + |x|)^2; 1 - |y| would be as fast, but loses its digits for large x."""
    g = a.graph
    reach = g.op("Add", g.op("Abs", a.inputs[0]), g.scalar(1.0))
    return (g.op("Div", only(dys), g.op("Mul", reach, reach)),)


def thresholded_relu(a: Application, dys: Gradients) -> Gradients:
    """dx = dy where x > alpha; 0 at alpha, as in PyTorch."""
    g, alpha = a.graph, float(a.attribute("alpha", 1.0))
    beyond = g.op("Sub", a.inputs[0], g.scalar(alpha))
    return (g.op("Mul", only(dys), is_positive(g, beyond)),)


def _bent(g: GraphBuilder, y: str, *, above: float, offset: float) -> str:
    """`above` where y > 0, else y + `offset`.

    ThresholdedRelu lets pass what y <= 0 makes of (above - offset) - y, and nothing else: 1.7 ms, sums of
    steps 2.2 to 2.5, Where 5.7. Positive y so small that the difference rounds them away count as 0.
    """
    gap = np.float32(above - offset)
    left = g.op("Sub", g.scalar(above - offset), y)
    passed = g.op("ThresholdedRelu", left, alpha=float(np.nextafter(gap, np.float32(-np.inf))))
    return g.op("Sub", g.scalar(above), passed)


def _bent_by_input(g: GraphBuilder, x: str, alpha: float) -> str:
    """1 where x > 0, else alpha exp(x)."""
    below = g.op("Mul", g.op("Exp", g.op("Min", x, g.scalar(0.0))), g.scalar(alpha))
    return g.op("Add", below, g.op("Mul", is_positive(g, x), g.scalar(1.0 - alpha)))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Celu": celu,
        "Elu": elu,
        "HardSigmoid": hard_sigmoid,
        "LeakyRelu": leaky_relu,
        "PRelu": prelu,
        "Relu": relu,
        "Selu": selu,
        "Sigmoid": sigmoid,
        "Softplus": softplus,
        "Softsign": softsign,
        "Tanh": tanh,
        "ThresholdedRelu": thresholded_relu,
    }
)
FORMS: Mapping[str, Form] = MappingProxyType({"Celu": celu_form, "PRelu": prelu_form})
