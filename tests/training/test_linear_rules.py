"""Laws of the rules of matrix products: Gemm and MatMul."""

from __future__ import annotations

import numpy as np
from gradient_check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from often import examples

quick = settings(max_examples=examples(20), deadline=None)
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
