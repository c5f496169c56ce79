"""Reverse accumulation as a whole, and the worked example of the documentation."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradient_check import check
from numpy.typing import NDArray
from onnx import helper
from small_models import normal

from laconic.errors import UnsupportedOperator
from laconic.training.rules import RULES


def spread(seed: int, *shape: int) -> NDArray[np.float32]:
    """Distinct values, none near zero: no kink within reach of a central difference."""
    size = int(np.prod(shape))
    values = np.arange(size) - size // 2 + 0.5
    return (np.random.default_rng(seed).permutation(values) / 8).reshape(shape).astype(np.float32)


def test_gradients_that_meet_are_summed() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Gemm", ["x", "w"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Add", ["c", "x"], ["y"]),
    ]
    check(nodes, {"x": spread(1, 3, 3), "w": normal(1, 3, 3)}, ["x", "w"], batched=["x"])


def test_the_example_of_the_documentation_is_a_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "add-an-operator.md").read_text()
    code = re.search(r"^( *)```python\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    assert code
    scope: dict[str, Any] = {}
    exec(textwrap.dedent(code[2]), scope)
    node = helper.make_node("Tanh", ["x"], ["y"])
    check(node, {"x": normal(0, 2, 3)}, ["x"], batched=["x"], rules={**RULES, "Tanh": scope["tanh"]})
    others = {op_type: rule for op_type, rule in RULES.items() if op_type != "Tanh"}
    with pytest.raises(UnsupportedOperator):
        check(node, {"x": normal(0, 2, 3)}, ["x"], rules=others)
