"""Gradient rules of elementwise arithmetic with broadcasting."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from onnx import helper

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, only


def add(a: Application, dys: Gradients) -> Gradients:
    """dx = dy, summed over the axes along which x was broadcast; for any number of inputs."""
    dy = only(dys)
    return tuple(
        a.graph.sum_to(dy, a.output_shape, x) if wanted else None
        for x, wanted in zip(a.inputs, a.wanted, strict=True)
    )


def mean(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / n, summed as in `add`, for n inputs."""
    return add(a, (a.graph.op("Mul", only(dys), a.graph.scalar(1.0 / len(a.inputs))),))


def sub(a: Application, dys: Gradients) -> Gradients:
    """dx = dy and dz = -dy for y = x - z, summed as in `add`."""
    dx, dz = add(a, dys)
    return dx, None if dz is None else a.graph.op("Neg", dz)


def mul(a: Application, dys: Gradients) -> Gradients:
    """dx = z dy and dz = x dy for y = x z, summed as in `add`."""
    g, (x, z), dy = a.graph, a.inputs, only(dys)
    return (
        g.sum_to(g.op("Mul", dy, z), a.output_shape, x) if a.wanted[0] else None,
        g.sum_to(g.op("Mul", dy, x), a.output_shape, z) if a.wanted[1] else None,
    )


def div(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / z and dz = -y dy / z for y = x / z, summed as in `add`."""
    g, (x, z), dy = a.graph, a.inputs, only(dys)
    known = g.value(z)
    if known is None:
        quotient = g.op("Div", dy, z)
    else:
        quotient = g.op("Mul", dy, g.floats(1.0 / np.asarray(known, np.float64)))
    dx = g.sum_to(quotient, a.output_shape, x) if a.wanted[0] else None
    if not a.wanted[1]:
        return dx, None
    return dx, g.op("Neg", g.sum_to(g.op("Mul", quotient, a.output), a.output_shape, z))


def neg(a: Application, dys: Gradients) -> Gradients:
    """dx = -dy."""
    return (a.graph.op("Neg", only(dys)),)


def power_form(a: Application, training: Training | None) -> Saved:
    """x^z as roots and reciprocals where z is a constant that allows it.

    With the gradient 1.0 ms instead of 5.9 for 0.8M elements and z = 1/2, 1.6 instead of 6.3 for z = -1/2.
    """
    g, (x, z) = a.graph, a.inputs
    known = g.value(z)
    chain: tuple[str, ...] = ()
    if known is not None and known.size == 1 and known.ndim <= len(g.shape(x)):
        chain = _POWERS.get(float(known.reshape(())), ())
    if not chain:
        g.append(a.node)
        return {}
    for op_type in chain[:-1]:
        x = g.op(op_type, x)
    g.append(helper.make_node(chain[-1], [x], [a.output]))
    return {}


_POWERS = {0.5: ("Sqrt",), -0.5: ("Sqrt", "Reciprocal"), -1.0: ("Reciprocal",)}


def power(a: Application, dys: Gradients) -> Gradients:
    """dx = z x^(z - 1) dy and dz = y log(x) dy for y = x^z, summed as in `add`.

    As in PyTorch, dx is 0 where z = 0, and dz is 0 where x = 0 and z >= 0.
    """
    g, (x, z), dy = a.graph, a.inputs, only(dys)
    known = g.value(z)
    dx = dz = None
    if a.wanted[0] and known is not None and known.size == 1:
        slope = _slope_of_power(g, x, a.output, float(known.reshape(())))
        if slope is not None:
            dx = g.sum_to(g.op("Mul", dy, slope) if slope else dy, a.output_shape, x)
    elif a.wanted[0]:
        exponent = g.floats(known) if known is not None else z if a.wanted[1] else g.to_real(z)
        less = g.op("Sub", exponent, g.scalar(1.0))
        slope = g.op("Mul", exponent, g.op("Pow", x, less))
        if known is None or not known.all():
            zero = g.scalar(0.0)
            slope = g.op("Where", g.op("Equal", exponent, zero), zero, slope)
        dx = g.sum_to(g.op("Mul", dy, slope), a.output_shape, x)
    if a.wanted[1]:
        zero = g.scalar(0.0)
        flat = g.op("And", g.op("Equal", x, zero), g.op("GreaterOrEqual", z, zero))
        slope = g.op("Where", flat, zero, g.op("Mul", a.output, g.op("Log", x)))
        dz = g.sum_to(g.op("Mul", dy, slope), a.output_shape, z)
    return dx, dz


def _slope_of_power(g: GraphBuilder, x: str, y: str, exponent: float) -> str | None:
    """exponent x^(exponent - 1); an empty name for 1, None for 0.

    onnxruntime has fast kernels of Pow for the exponents 2 and 3 (0.7 ms for 0.8M elements) and a slow one
    for all others (7.4 ms).
    """
    if exponent == 0.0:
        return None
    if exponent == 1.0:
        return ""
    if exponent == 2.0:
        return g.op("Mul", x, g.scalar(2.0))
    if exponent == 0.5:
        return g.op("Div", g.scalar(0.5), y)
    if exponent < 0.0:
        return g.op("Mul", g.op("Div", y, x), g.scalar(exponent))
    less = g.op("Sqrt", x) if exponent == 1.5 else g.op("Pow", x, g.scalar(exponent - 1.0))
    return g.op("Mul", less, g.scalar(exponent))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Add": add,
        "Div": div,
        "Mean": mean,
        "Mul": mul,
        "Neg": neg,
        "Pow": power,
        "Sub": sub,
        "Sum": add,
    }
)
FORMS: Mapping[str, Form] = MappingProxyType({"Pow": power_form})
