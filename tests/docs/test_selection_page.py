"""docs/selection.md: its function chooses, its defaults are the defaults."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from laconic.coordinator.selection import (
    Candidate,
    Context,
    SelectionSection,
    choose,
    selection_of,
    strategy_of,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "selection.md").read_text()


def test_the_function_on_the_page_is_a_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.+?)```", PAGE, re.DOTALL)
    name = re.search(r'strategy = "([\w.]+):(\w+)"', PAGE)
    assert code
    assert name
    module = types.ModuleType(name[1])
    exec(code[1], module.__dict__)
    monkeypatch.setitem(sys.modules, name[1], module)
    how = selection_of(SelectionSection(strategy=f"{name[1]}:{name[2]}"))
    devices = [Candidate(f"d{i}", 10, 1.0, 100, charge=i / 10) for i in range(9)]
    choice = choose(how, strategy_of(how), devices, 3, Context("fleet", "cohort", "task", 1))
    assert choice.failure is None
    assert choice.names == ["d8", "d7", "d6"]


def test_the_defaults_on_the_page() -> None:
    section = SelectionSection()
    said = re.search(r"asked before \((\S+), times (\S+) a round, at\s+least (\S+)\)", PAGE)
    assert said
    assert [float(x) for x in said.groups()] == [
        section.exploration,
        section.exploration_decay,
        section.exploration_least,
    ]
    usual = re.search(r"Without a word W is (\d+)", PAGE)
    assert usual
    assert selection_of(SelectionSection(strategy="oort")).most_rounds_waiting == int(usual[1])
    assert section.joules_exponent == section.bytes_exponent == 0.5, "the page says one half"
