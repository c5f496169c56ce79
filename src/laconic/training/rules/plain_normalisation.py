"""Forms and gradient rules of normalisations without weights: by length, by variance, by neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from onnx import helper

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only

_NOTHING = 1e-38
"""A squared norm below which a vector counts as zero."""


def lp_normalization(a: Application, dys: Gradients) -> Gradients:
    """y = x / |x|: dx = (dy - sum(dy * y) * d|x|/dx) / |x|.

    d|x|/dx is y for p = 2 and sign(x) for p = 1, 0 at 0. A vector of zeros, whose direction is undefined,
    passes no gradient on.
    """
    g, dy = a.graph, only(dys)
    x, axis = a.inputs[0], g.ints(int(a.attribute("axis", -1)))
    first = int(a.attribute("p", 2)) == 1
    norm = g.op("ReduceL1" if first else "ReduceL2", x, axis, keepdims=1)
    inverse = g.op("Div", norm, g.op("Max", g.op("Mul", norm, norm), g.scalar(_NOTHING)))
    along = g.op("ReduceSum", g.op("Mul", dy, a.output), axis, keepdims=1)
    slope = g.op("Sign", x) if first else a.output
    return (g.op("Mul", g.op("Sub", dy, g.op("Mul", slope, along)), inverse),)


def mean_variance_form(a: Application, training: Training | None) -> Saved:
    """Its definition in elementary operators: onnxruntime's kernel knows two choices of axes only.

    Saves the `deviation`.
    """
    g, x = a.graph, a.inputs[0]
    axes = _axes(a)
    centred = g.op("Sub", x, g.op("ReduceMean", x, axes, keepdims=1))
    var = g.op("ReduceMean", g.op("Mul", centred, centred), axes, keepdims=1)
    deviation = g.op("Add", g.op("Sqrt", var), g.scalar(1e-9))
    g.append(helper.make_node("Div", [centred, deviation], [a.output]))
    return {"deviation": deviation}


def mean_variance(a: Application, dys: Gradients) -> Gradients:
    """dx = (dy - mean(dy) - y * mean(dy * y)) / deviation."""
    g, dy, y = a.graph, only(dys), a.output
    axes = _axes(a)
    level = g.op("ReduceMean", dy, axes, keepdims=1)
    slope = g.op("ReduceMean", g.op("Mul", dy, y), axes, keepdims=1)
    rest = g.op("Sub", g.op("Sub", dy, level), g.op("Mul", y, slope))
    return (g.op("Div", rest, a.saved["deviation"]),)


def lrn(a: Application, dys: Gradients) -> Gradients:
    """y = x * b^-beta with b = bias + alpha / size * (sum of the squares of neighbouring channels).

    dx = dy * b^-beta - 2 alpha beta / size * x * (sum over those that x is a neighbour of, of dy * y / b)
    (Krizhevsky et al., NeurIPS 2012, section 3.3). Sums over neighbours are products with a band matrix.
    """
    g, dy = a.graph, only(dys)
    x = a.inputs[0]
    size, beta = int(a.attribute("size")), float(a.attribute("beta", 0.75))
    alpha = float(a.attribute("alpha", 1e-4)) / size
    channels = g.static(x, 1)[0]
    offset = np.arange(channels)[None] - np.arange(channels)[:, None]
    band = ((-((size - 1) // 2) <= offset) & (offset <= size // 2)).astype(np.float64)
    rows = g.reshape(x, 0, channels, -1)
    squares = g.op("MatMul", g.floats(alpha * band), g.op("Mul", rows, rows))
    base = g.op("Add", squares, g.scalar(float(a.attribute("bias", 1.0))))
    power = g.op("Pow", base, g.scalar(-beta))
    straight = g.op("Mul", g.reshape(dy, 0, channels, -1), power)
    weighed = g.op("Div", g.op("Mul", straight, rows), base)
    back = g.op("Mul", rows, g.op("MatMul", g.floats(2 * alpha * beta * band.T), weighed))
    return (g.reshape_like(g.op("Sub", straight, back), x),)


def _axes(a: Application) -> str:
    graph: GraphBuilder = a.graph
    return graph.ints(*a.attribute("axes", [0, 2, 3]))


RULES: Mapping[str, Rule] = MappingProxyType(
    {"LRN": lrn, "LpNormalization": lp_normalization, "MeanVarianceNormalization": mean_variance}
)
FORMS: Mapping[str, Form] = MappingProxyType({"MeanVarianceNormalization": mean_variance_form})
