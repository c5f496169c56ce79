"""The pages on the coordinator say what the benchmark's results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the benchmark's data sets come with scikit-learn")

from _coordinator import pages

ROOT = Path(__file__).resolve().parents[2]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "coordinator.json").read_text())["results"]


def test_the_page_on_aggregation_has_the_measured_tables() -> None:
    text = (ROOT / "docs" / "aggregation.md").read_text()
    assert text.count("written by scripts/bench coordinator") == 3
    assert pages.filled(text, RESULTS) == text
    doctored = json.loads(json.dumps(RESULTS).replace('"sign flip": 0.', '"sign flip": 9.'))
    assert pages.filled(text, doctored) != text
    assert pages.filled(text, {}) == text


def test_the_page_on_selection_has_the_measured_table() -> None:
    text = (ROOT / "docs" / "selection.md").read_text()
    assert text.count("written by scripts/bench coordinator") == 1
    assert pages.filled(text, RESULTS) == text
    doctored = json.loads(json.dumps(RESULTS).replace('"jain": 0.', '"jain": 9.'))
    assert pages.filled(text, doctored) != text
