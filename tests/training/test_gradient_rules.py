"""Laws of the gradient rules: each agrees with central differences, for all attributes that it may meet."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradient_check import check, reference, rule_gradients
from hypothesis import assume, given, settings
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
    "Conv": "test_conv",
    "Flatten": "test_flatten",
    "Gemm": "test_gemm",
    "Identity": "test_identity",
    "MatMul": "test_matmul",
    "MaxPool": "test_max_pool",
    "Reshape": "test_reshape",
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


@quick
@given(seeds, st.integers(0, 4))
def test_flatten(seed: int, axis: int) -> None:
    node = helper.make_node("Flatten", ["x"], ["y"], axis=axis)
    check(node, {"x": normal(seed, 2, 3, 2, 2)}, ["x"], batched=["x"] if axis == 1 else [])


@quick
@given(seeds, st.sampled_from([(0, -1), (0, 12), (-1, 4), (2, 3, 4), (24,), (0, 2, 0, 3)]))
def test_reshape(seed: int, target: tuple[int, ...]) -> None:
    x = normal(seed, 2, 3, 2, 2)
    values = {"x": x, "shape": np.array(target, np.int64)}
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    check(node, values, ["x"], batched=["x"] if target[0] == 0 else [])


def test_identity() -> None:
    check(helper.make_node("Identity", ["x"], ["y"]), {"x": normal(0, 3, 2)}, ["x"], batched=["x"])


@settings(max_examples=45, deadline=None)
@given(
    seed=seeds,
    rank=st.sampled_from([1, 2, 2, 2, 3]),
    kernel=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    strides=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    dilations=st.lists(st.integers(1, 2), min_size=3, max_size=3),
    pads=st.lists(st.integers(0, 2), min_size=6, max_size=6),
    auto_pad=st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    group=st.sampled_from([1, 1, 2, 4]),
    bias=st.booleans(),
    batched=st.booleans(),
)
def test_conv(
    seed: int,
    rank: int,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    auto_pad: str,
    group: int,
    bias: bool,
    batched: bool,
) -> None:
    size = [5, 4, 5][:rank]
    kernel, strides, dilations = kernel[:rank], strides[:rank], dilations[:rank]
    before, after = pads[:rank], pads[3 : 3 + rank]
    padded = [s + (b + a) * (auto_pad == "NOTSET") for s, b, a in zip(size, before, after, strict=True)]
    assume(all(p >= d * (k - 1) + 1 for p, d, k in zip(padded, dilations, kernel, strict=True)))
    values = {"x": normal(seed, 2, 4, *size), "w": normal(seed, 4, 4 // group, *kernel)}
    if bias:
        values["b"] = normal(seed, 4)
    attributes: dict[str, object] = {"strides": strides, "dilations": dilations, "group": group}
    attributes |= {"pads": before + after} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    node = helper.make_node("Conv", list(values), ["y"], kernel_shape=kernel, **attributes)
    # Not every release of the reference implementation gets automatic padding right: spell it out there.
    if attributes.pop("auto_pad", "VALID") != "VALID":
        windows = zip(size, kernel, strides, dilations, strict=True)
        total = [max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n) for n, k, s, d in windows]
        half = [t // 2 for t in total]
        rest = [t - h for t, h in zip(total, half, strict=True)]
        attributes["pads"] = half + rest if auto_pad == "SAME_UPPER" else rest + half
    plain = helper.make_node("Conv", list(values), ["y"], kernel_shape=kernel, **attributes)
    forward = reference([plain], values)
    check(node, values, list(values), batched=["x"] if batched else [], forward=forward)


@settings(max_examples=45, deadline=None)
@given(
    seed=seeds,
    rank=st.sampled_from([1, 2, 2, 2]),
    kernel=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    strides=st.one_of(st.none(), st.lists(st.integers(1, 3), min_size=2, max_size=2)),
    dilation=st.sampled_from([1, 1, 2]),
    pads=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    ceil=st.booleans(),
    batched=st.booleans(),
)
def test_max_pool(
    seed: int,
    rank: int,
    kernel: list[int],
    strides: list[int] | None,
    dilation: int,
    pads: list[int],
    ceil: bool,
    batched: bool,
) -> None:
    size, kernel = [5, 6][:rank], kernel[:rank]
    # Without strides of its own, an example is the common case: windows side by side, nothing padded.
    steps = kernel if strides is None else strides[:rank]
    before = [0] * rank if strides is None else [min(p, k - 1) for p, k in zip(pads, kernel, strict=False)]
    after = [0] * rank if strides is None else [min(p, k - 1) for p, k in zip(pads[2:], kernel, strict=False)]
    dilation = 1 if strides is None else dilation
    reach = [s + b + a for s, b, a in zip(size, before, after, strict=True)]
    assume(all(r >= dilation * (k - 1) + 1 for r, k in zip(reach, kernel, strict=True)))
    # Implementations differ about a last window that would begin after the input: no model has one.
    edges = zip(reach, kernel, steps, size, before, strict=True)
    assume(not ceil or all(-(-(r - dilation * (k - 1) - 1) // t) * t < n + b for r, k, t, n, b in edges))
    attributes = {"strides": steps, "dilations": [dilation] * rank, "pads": before + after}
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=kernel, ceil_mode=int(ceil), **attributes)
    rounded = [
        -(-(r - dilation * (k - 1) - 1) // t) if ceil else (r - dilation * (k - 1) - 1) // t
        for r, k, t in zip(reach, kernel, steps, strict=True)
    ]
    windows = list(zip(size, kernel, steps, before, rounded, strict=True))

    def by_definition(feeds: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        y = feeds["x"]
        for axis, (n, k, step, pad, last) in enumerate(windows, start=2):
            seen = [range(o * step - pad, o * step - pad + dilation * k, dilation) for o in range(last + 1)]
            parts = [y.take([i for i in s if 0 <= i < n], axis).max(axis) for s in seen]
            y = np.stack(parts, axis)
        return y

    check(node, {"x": spread(seed, 2, 3, *size)}, ["x"], batched=["x"] * batched, forward=by_definition)


@pytest.mark.parametrize("strides", [[2, 2], [1, 1]])
def test_among_equal_values_the_first_in_row_major_order_is_the_maximum(strides: list[int]) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=strides)
    size = 4 if strides == [2, 2] else 3
    dy = np.array([[[[1, 2], [3, 4]]]], np.float32)
    found = rule_gradients([node], {"x": np.full((1, 1, size, size), 5, np.float32)}, dy, ["x"])["x"]
    due = np.zeros((1, 1, size, size), np.float32)
    due[0, 0, : 2 * strides[0] : strides[0], : 2 * strides[0] : strides[0]] = dy
    assert found.tolist() == due.tolist()


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
