"""Laws of the gradient rules: each agrees with central differences, for all attributes that it may meet."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradient_check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from laconic.errors import UnsupportedOperator
from laconic.training.rules import FAMILIES, RULES

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**16)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def spread(seed: int, *shape: int) -> NDArray[np.float32]:
    """Distinct values, none near zero: no kink within reach of a central difference."""
    size = int(np.prod(shape))
    values = np.arange(size) - size // 2 + 0.5
    return (np.random.default_rng(seed).permutation(values) / 8).reshape(shape).astype(np.float32)


COVERED: dict[str, str] = {
    "Gemm": "test_gemm",
    "MatMul": "test_matmul",
}


def test_every_rule_has_a_gradient_check() -> None:
    assert COVERED.keys() == RULES.keys()
    assert all(callable(globals()[name]) for name in COVERED.values())


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        RULES["Relu"] = RULES["Add"]  # type: ignore[index]
    assert sum(len(family.RULES) for family in FAMILIES) == len(RULES)


@quick
@given(
    seeds,
    st.booleans(),
    st.booleans(),
    st.sampled_from([1.0, 0.5, -2.0]),
    st.sampled_from([1.0, 0.0, 3.0]),
    st.sampled_from([None, (), (1,), (4,), (1, 4), (3, 1), (3, 4)]),
)
def test_gemm(seed: int, ta: bool, tb: bool, alpha: float, beta: float, c: tuple[int, ...] | None) -> None:
    values = {"a": normal(seed, *((5, 3) if ta else (3, 5))), "b": normal(seed, *((4, 5) if tb else (5, 4)))}
    if c is not None:
        values["c"] = normal(seed, *c)
    attributes = {"transA": int(ta), "transB": int(tb), "alpha": alpha, "beta": beta}
    node = helper.make_node("Gemm", list(values), ["y"], **attributes)
    batched = ["a"] if not ta and c in (None, (), (1,), (4,), (1, 4)) else []
    check(node, values, list(values), batched=batched)


@quick
@given(
    seeds,
    st.sampled_from(
        [
            ((3, 5), (5, 4)),
            ((2, 3, 5), (5, 4)),
            ((2, 2, 3, 5), (5, 1)),
            ((2, 3, 5), (2, 5, 4)),
            ((1, 3, 5), (2, 5, 4)),
            ((2, 1, 3, 5), (2, 5, 4)),
            ((3, 5), (2, 5, 4)),
            ((5,), (5, 4)),
            ((5,), (2, 5, 4)),
            ((3, 5), (5,)),
            ((2, 3, 5), (5,)),
            ((5,), (5,)),
        ]
    ),
)
def test_matmul(seed: int, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    values = {"a": normal(seed, *shapes[0]), "b": normal(seed, *shapes[1])}
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    check(node, values, ["a", "b"])
    if len(shapes[0]) > 1 and len(shapes[1]) < 3:
        check(node, values, ["a", "b"], batched=["a"])


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
