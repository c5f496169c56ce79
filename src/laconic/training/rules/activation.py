"""Gradient rules of the activation functions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from laconic.training.builder import GraphBuilder
from laconic.training.rules.application import Application, Gradients, Rule, only

STEEP = 1e30
"""Slope at which HardSigmoid is a unit step for every float32 but those closer to zero than 1e-30."""


def is_positive(graph: GraphBuilder, x: str) -> str:
    """1.0 where `x` > 0, else 0.0.

    One vectorised float kernel; comparing and casting takes about 1.7 times as long, Where 15 times.
    """
    return graph.op("HardSigmoid", x, alpha=STEEP, beta=0.0)


def is_not_negative(graph: GraphBuilder, x: str) -> str:
    """1.0 where `x` >= 0, else 0.0 (see `is_positive`)."""
    return graph.op("HardSigmoid", x, alpha=STEEP, beta=1.0)


def relu(a: Application, dys: Gradients) -> Gradients:
    """dx = dy where y > 0; the derivative at 0 is 0, as in PyTorch."""
    return (a.graph.op("Mul", only(dys), is_positive(a.graph, a.output)),)


RULES: Mapping[str, Rule] = MappingProxyType({"Relu": relu})
