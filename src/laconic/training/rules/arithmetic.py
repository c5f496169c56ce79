"""Gradient rules of elementwise arithmetic with broadcasting."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from laconic.training.rules.application import Application, Gradients, Rule, only


def add(a: Application, dys: Gradients) -> Gradients:
    """dx = dy, summed over the axes along which x was broadcast."""
    dy = only(dys)
    return tuple(
        a.graph.sum_to(dy, a.output_shape, x) if wanted else None
        for x, wanted in zip(a.inputs, a.wanted, strict=True)
    )


RULES: Mapping[str, Rule] = MappingProxyType({"Add": add})
