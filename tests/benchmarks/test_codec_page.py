"""The page on presets says what the benchmark's results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the benchmark's data sets come with scikit-learn")

from _codec import page

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "codec.json"
REPORT = {
    "results": {
        "rate": {"summary": {"small, as sent": {"all": 0.5, "median": 0.6, "worst": 0.7}}},
    },
    "bars": [
        {"name": "bytes", "value": 2.0, "limit": 1.0, "ok": False},
        {"name": "seconds", "value": 1.0, "limit": 2.0, "ok": True},
    ],
}


def blank(name: str) -> str:
    return f"<!-- {name}: written by scripts/bench codec -->\nold\n<!-- end -->\n"


def test_a_table_takes_the_place_of_the_last_one() -> None:
    text = page.filled("before\n" + blank("rate") + "after\n", REPORT)
    assert "old" not in text
    assert "| small, as sent | 0.50 | 0.60 | 0.70 |\n" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_filling_twice_is_filling_once() -> None:
    once = page.filled(blank("rate") + blank("failed"), REPORT)
    assert page.filled(once, REPORT) == once


def test_only_bars_that_are_not_met_are_told_as_failed() -> None:
    text = page.filled(blank("failed"), REPORT)
    assert "- bytes: 2, where 1 is wanted\n" in text
    assert "seconds" not in text


def test_a_part_without_results_keeps_its_text() -> None:
    assert page.filled(blank("speed"), REPORT) == blank("speed")


def test_the_page_is_what_the_results_make_of_it() -> None:
    text = page.PAGE.read_text()
    assert page.filled(text, json.loads(RESULTS.read_text())) == text
