"""Gradient rules of operators that move elements but do not change them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from laconic.training.rules.application import Application, Gradients, Rule, only


def identity(a: Application, dys: Gradients) -> Gradients:
    """dx = dy."""
    return (only(dys),)


def reshape(a: Application, dys: Gradients) -> Gradients:
    """dx = dy in the shape of x; the target shape, if it is an input, has no gradient."""
    return (a.graph.reshape_like(only(dys), a.inputs[0]), *(None for _ in a.inputs[1:]))


RULES: Mapping[str, Rule] = MappingProxyType({"Flatten": reshape, "Identity": identity, "Reshape": reshape})
