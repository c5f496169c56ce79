"""The gradient rules: one small function for each operator, grouped by family.

`RULES` maps an operator of the standard ONNX domain to its rule. To add one, see docs/add-an-operator.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from laconic.training.rules import activation, arithmetic, convolution, linear, pooling, shape
from laconic.training.rules.application import Application, Gradients, Rule

FAMILIES = (activation, arithmetic, convolution, linear, pooling, shape)


def _merged() -> Mapping[str, Rule]:
    table: dict[str, Rule] = {}
    for family in FAMILIES:
        if twice := table.keys() & family.RULES.keys():
            raise RuntimeError(f"two rules for {sorted(twice)}")
        table.update(family.RULES)
    return MappingProxyType(table)


RULES: Mapping[str, Rule] = _merged()

__all__ = ["FAMILIES", "RULES", "Application", "Gradients", "Rule"]
