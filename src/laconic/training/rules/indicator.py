"""Where values lie, as real numbers 0 and 1: what piecewise derivatives are made of.

On onnxruntime's CPU a step made of one HardSigmoid is one vectorised kernel. For 0.8M elements, with the
product that uses it: HardSigmoid 1.1 ms, Greater + Cast 1.3 ms, Where 5 ms. Sign alone takes 1.3 ms, a steep
slope cut off at both ends 0.4 ms.
"""

from __future__ import annotations

from laconic.training.builder import GraphBuilder

STEEP = 2.0**100
"""Slope at which HardSigmoid is a unit step for all values but those closer to zero than 1e-30.

As a power of two it multiplies without rounding, so that a step away from zero stands exactly there.
"""


def is_positive(graph: GraphBuilder, x: str) -> str:
    """1.0 where `x` > 0, else 0.0."""
    return graph.op("HardSigmoid", x, alpha=STEEP, beta=0.0)


def is_not_negative(graph: GraphBuilder, x: str) -> str:
    """1.0 where `x` >= 0, else 0.0."""
    return graph.op("HardSigmoid", x, alpha=STEEP, beta=1.0)


def is_positive_or_half(graph: GraphBuilder, x: str) -> str:
    """1.0 where `x` > 0, 0.5 where it is 0, else 0.0."""
    return graph.op("HardSigmoid", x, alpha=STEEP, beta=0.5)


def is_zero(graph: GraphBuilder, x: str) -> str:
    """1.0 where `x` = 0, else 0.0."""
    return graph.op("HardSigmoid", graph.op("Abs", x), alpha=-STEEP, beta=1.0)


def is_equal(graph: GraphBuilder, x: str, y: str) -> str:
    """1.0 where `x` = `y`, else 0.0.

    Comparing and casting is a tenth faster than a step on the difference, and holds for infinities too.
    """
    return graph.to_real(graph.op("Equal", x, y))


def is_within(graph: GraphBuilder, x: str, low: float, high: float) -> str:
    """1.0 where `low` < `x` < `high`, else 0.0.

    Values that subtracting the middle of the bounds rounds to a bound count as that bound.
    """
    distance = graph.op("Abs", graph.op("Sub", x, graph.scalar((low + high) / 2)))
    return graph.op("HardSigmoid", distance, alpha=-STEEP, beta=STEEP * (high - low) / 2)


def sign(graph: GraphBuilder, x: str) -> str:
    """1.0 where `x` > 0, -1.0 where `x` < 0, 0.0 where it is 0."""
    steep = graph.op("Mul", x, graph.scalar(STEEP))
    return graph.op("Clip", steep, graph.scalar(-1.0), graph.scalar(1.0))
