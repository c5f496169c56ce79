"""The tables of rules as a whole: every rule has a test of its own, and nobody can change a table."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from laconic.training.rules import FAMILIES, FORMS, RULES

HERE = Path(__file__).parent


def rule_tests() -> list[ModuleType]:
    return [importlib.import_module(p.stem) for p in sorted(HERE.glob("test_*_rules.py"))]


def test_every_rule_has_a_gradient_check() -> None:
    covered: dict[str, str] = {}
    for module in rule_tests():
        for operator, name in module.COVERED.items():
            assert operator not in covered, f"{operator} is covered twice"
            assert callable(getattr(module, name)), f"{module.__name__} has no {name}"
            covered[operator] = f"{module.__name__}::{name}"
    assert covered.keys() == RULES.keys()


def test_the_tables_cannot_be_changed() -> None:
    for table in (RULES, FORMS):
        with pytest.raises(TypeError):
            table["Relu"] = table["Gelu"]  # type: ignore[index]
    assert sum(len(family.RULES) for family in FAMILIES) == len(RULES)
    assert FORMS.keys() <= RULES.keys()
