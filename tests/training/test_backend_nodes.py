"""onnx's own node models: what has a rule is differentiated rightly, and the page says what became of all."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
from backend_nodes import BEGIN, END, PAGE, Verdict, cases, page, progress


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return list(progress(cases()))


def test_no_case_is_differentiated_wrongly(verdicts: list[Verdict]) -> None:
    assert [v for v in verdicts if v.status == "failed"] == []
    assert Counter(v.status for v in verdicts)["passed"] > 670


def test_every_refusal_names_its_node_and_a_way_out(verdicts: list[Verdict]) -> None:
    for v in verdicts:
        if v.status == "refused":
            assert ";" in v.why, v
            # onnx's own complaints about a graph that was made here would be a fault of ours.
            assert "is not valid" not in v.why, v


def test_the_page_has_the_table(verdicts: list[Verdict]) -> None:
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    if f"onnx {onnx.__version__}," not in table:
        pytest.skip(f"the page was made with another onnx than {onnx.__version__}")
    assert table == page(verdicts)
