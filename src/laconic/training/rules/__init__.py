"""The gradient rules: one small function for each operator, grouped by family.

`RULES` maps an operator of the standard ONNX domain to its rule, `FORMS` those that are not run as they stand
to their form. To add one, see docs/add-an-operator.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

from laconic.training.rules import (
    activation,
    arithmetic,
    batch_normalisation,
    blocks,
    choice,
    convolution,
    dropout,
    einsum,
    elementary,
    gated,
    indexing,
    linear,
    normalisation,
    padding,
    pieces,
    plain_normalisation,
    pooling,
    recurrent,
    reduction,
    resize,
    shape,
    softmax,
    swish,
)
from laconic.training.rules.application import Application, Form, Gradients, Rule, Saved, Training, key

FAMILIES = (
    activation,
    arithmetic,
    batch_normalisation,
    blocks,
    choice,
    convolution,
    dropout,
    einsum,
    elementary,
    gated,
    indexing,
    linear,
    normalisation,
    padding,
    pieces,
    plain_normalisation,
    pooling,
    recurrent,
    reduction,
    resize,
    shape,
    softmax,
    swish,
)
"""Each family has a table `RULES`, and a table `FORMS` if any of its operators needs one."""

T = TypeVar("T")


def _merged(tables: Iterable[Mapping[str, T]]) -> Mapping[str, T]:
    merged: dict[str, T] = {}
    for table in tables:
        if twice := merged.keys() & table.keys():
            raise RuntimeError(f"two entries for {sorted(twice)}")
        merged.update(table)
    return MappingProxyType(merged)


RULES: Mapping[str, Rule] = _merged(family.RULES for family in FAMILIES)
FORMS: Mapping[str, Form] = _merged(getattr(family, "FORMS", {}) for family in FAMILIES)

__all__ = [
    "FAMILIES",
    "FORMS",
    "RULES",
    "Application",
    "Form",
    "Gradients",
    "Rule",
    "Saved",
    "Training",
    "key",
]
