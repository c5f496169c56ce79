"""Gradient rules of functions of one real number: roots, exponentials, trigonometry, Erf.

Derivatives at the edge of a function's domain are infinite, as in PyTorch: that of Sqrt at 0, of Log at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Rule, only
from laconic.training.rules.indicator import sign


def absolute(a: Application, dys: Gradients) -> Gradients:
    """dx = sign(x) dy; 0 at 0, as in PyTorch."""
    return (a.graph.op("Mul", only(dys), sign(a.graph, a.inputs[0])),)


def sqrt(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / (2 y)."""
    g = a.graph
    return (g.op("Div", g.op("Mul", only(dys), g.scalar(0.5)), a.output),)


def exp(a: Application, dys: Gradients) -> Gradients:
    """dx = y dy."""
    return (a.graph.op("Mul", only(dys), a.output),)


def log(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / x."""
    return (a.graph.op("Div", only(dys), a.inputs[0]),)


def reciprocal(a: Application, dys: Gradients) -> Gradients:
    """dx = -y^2 dy."""
    g, y = a.graph, a.output
    return (g.op("Neg", g.op("Mul", only(dys), g.op("Mul", y, y))),)


def erf(a: Application, dys: Gradients) -> Gradients:
    """dx = 2 / sqrt(pi) exp(-x^2) dy, the factor inside the exponent."""
    g, x = a.graph, a.inputs[0]
    exponent = g.op("Sub", g.scalar(math.log(2 / math.sqrt(math.pi))), g.op("Mul", x, x))
    return (g.op("Mul", only(dys), g.op("Exp", exponent)),)


def sin(a: Application, dys: Gradients) -> Gradients:
    """dx = cos(x) dy."""
    return (a.graph.op("Mul", only(dys), a.graph.op("Cos", a.inputs[0])),)


def cos(a: Application, dys: Gradients) -> Gradients:
    """dx = -sin(x) dy."""
    g = a.graph
    return (g.op("Neg", g.op("Mul", only(dys), g.op("Sin", a.inputs[0]))),)


def tan(a: Application, dys: Gradients) -> Gradients:
    """dx = (1 + y^2) dy."""
    g, y = a.graph, a.output
    return (g.op("Mul", only(dys), g.op("Add", g.op("Mul", y, y), g.scalar(1.0))),)


def sinh(a: Application, dys: Gradients) -> Gradients:
    """dx = cosh(x) dy."""
    return (a.graph.op("Mul", only(dys), a.graph.op("Cosh", a.inputs[0])),)


def cosh(a: Application, dys: Gradients) -> Gradients:
    """dx = sinh(x) dy."""
    return (a.graph.op("Mul", only(dys), a.graph.op("Sinh", a.inputs[0])),)


def asin(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / sqrt(1 - x^2)."""
    return (_divided(a, dys, lambda g, square: g.op("Sqrt", g.op("Sub", g.scalar(1.0), square))),)


def acos(a: Application, dys: Gradients) -> Gradients:
    """dx = -dy / sqrt(1 - x^2)."""
    return (a.graph.op("Neg", *filter(None, asin(a, dys))),)


def atan(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / (1 + x^2)."""
    return (_divided(a, dys, lambda g, square: g.op("Add", square, g.scalar(1.0))),)


def asinh(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / sqrt(x^2 + 1)."""
    return (_divided(a, dys, lambda g, square: g.op("Sqrt", g.op("Add", square, g.scalar(1.0)))),)


def acosh(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / sqrt(x^2 - 1)."""
    return (_divided(a, dys, lambda g, square: g.op("Sqrt", g.op("Sub", square, g.scalar(1.0)))),)


def atanh(a: Application, dys: Gradients) -> Gradients:
    """dx = dy / (1 - x^2)."""
    return (_divided(a, dys, lambda g, square: g.op("Sub", g.scalar(1.0), square)),)


def _divided(a: Application, dys: Gradients, divisor: Callable[[GraphBuilder, str], str]) -> str:
    """dy divided by a function of x^2."""
    g, x = a.graph, a.inputs[0]
    return g.op("Div", only(dys), divisor(g, g.op("Mul", x, x)))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Abs": absolute,
        "Acos": acos,
        "Acosh": acosh,
        "Asin": asin,
        "Asinh": asinh,
        "Atan": atan,
        "Atanh": atanh,
        "Cos": cos,
        "Cosh": cosh,
        "Erf": erf,
        "Exp": exp,
        "Log": log,
        "Reciprocal": reciprocal,
        "Sin": sin,
        "Sinh": sinh,
        "Sqrt": sqrt,
        "Tan": tan,
    }
)
