"""Laws of the gradient rules of pooling: they agree with central differences, for all windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradient_check import check, rule_gradients
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from laconic.errors import ModelError
from laconic.training.rules import pooling
from often import examples

quick = settings(max_examples=examples(20), deadline=None)
seeds = st.integers(0, 2**16)

COVERED: dict[str, str] = {
    "AveragePool": "test_average_pool",
    "GlobalAveragePool": "test_global_average_pool",
    "GlobalLpPool": "test_global_lp_pool",
    "GlobalMaxPool": "test_global_max_pool",
    "LpPool": "test_lp_pool",
    "MaxPool": "test_max_pool",
}


def test_every_rule_has_a_gradient_check() -> None:
    assert COVERED.keys() == pooling.RULES.keys()
    assert all(callable(globals()[name]) for name in COVERED.values())


def spread(seed: int, *shape: int) -> NDArray[np.float32]:
    """Distinct values, none near zero: no kink within reach of a central difference."""
    size = int(np.prod(shape))
    values = np.arange(size) - size // 2 + 0.5
    return (np.random.default_rng(seed).permutation(values) / 8).reshape(shape).astype(np.float32)


@st.composite
def windows(draw: st.DrawFn, dilated: bool = True) -> tuple[list[int], dict[str, Any]]:
    """A size of the input and the attributes of windows that fit into it; often side by side."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    size, kernel, ceil = [5, 6, 4][:rank], each(1, 3), draw(st.booleans())
    if draw(st.integers(0, 2)) == 0:
        return size, {"kernel_shape": kernel, "strides": kernel}
    strides, dilations = each(1, 3), each(1, 2) if dilated else [1] * rank
    automatic = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    pads = [min(p, k - 1) for p, k in zip(each(0, 2) + each(0, 2), kernel * 2, strict=True)]
    if automatic.startswith("SAME"):
        dilations = [1] * rank
        strides = [min(s, k) for s, k in zip(strides, kernel, strict=True)]
    if automatic != "NOTSET":
        pads = [0] * (2 * rank)
    # Implementations differ about a last window that would begin after the input: no model has one.
    for n, k, s, d, b, a in zip(size, kernel, strides, dilations, pads, pads[rank:], strict=False):
        room = n + b + a - d * (k - 1) - 1
        assume(room >= 0)
        assume(not ceil or -(-room // s) * s < n + b)
        assume(d == 1 or n > d * (k - 1))  # Every window sees an element.
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "ceil_mode": int(ceil)}
    if dilated:
        found["dilations"] = dilations
    found |= {"pads": pads} if automatic == "NOTSET" else {"auto_pad": automatic}
    if automatic != "NOTSET":
        found["ceil_mode"] = 0
    return size, found


@settings(max_examples=examples(45), deadline=None)
@given(seeds, windows(), st.booleans())
def test_max_pool(seed: int, window: tuple[list[int], dict[str, Any]], batched: bool) -> None:
    size, attributes = window
    node = helper.make_node("MaxPool", ["x"], ["y"], **attributes)
    check(node, {"x": spread(seed, 2, 3, *size)}, ["x"], batched=["x"] * batched)


@settings(max_examples=examples(45), deadline=None)
@given(seeds, windows(dilated=False), st.booleans(), st.booleans())
def test_average_pool(
    seed: int, window: tuple[list[int], dict[str, Any]], padding: bool, batched: bool
) -> None:
    size, attributes = window
    node = helper.make_node("AveragePool", ["x"], ["y"], count_include_pad=int(padding), **attributes)
    check(node, {"x": spread(seed, 2, 3, *size)}, ["x"], batched=["x"] * batched)


@quick
@given(seeds, windows(), st.integers(1, 4), st.booleans())
def test_lp_pool(seed: int, window: tuple[list[int], dict[str, Any]], p: int, batched: bool) -> None:
    size, attributes = window
    node = helper.make_node("LpPool", ["x"], ["y"], p=p, **attributes)
    check(node, {"x": spread(seed, 2, 1, *size)}, ["x"], batched=["x"] * batched)


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@quick
@given(seeds, sizes, st.booleans())
def test_global_average_pool(seed: int, size: list[int], batched: bool) -> None:
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    check(node, {"x": spread(seed, 2, 3, *size)}, ["x"], batched=["x"] * batched)


@quick
@given(seeds, sizes, st.booleans())
def test_global_max_pool(seed: int, size: list[int], batched: bool) -> None:
    node = helper.make_node("GlobalMaxPool", ["x"], ["y"])
    check(node, {"x": spread(seed, 2, 3, *size)}, ["x"], batched=["x"] * batched)


@quick
@given(seeds, sizes, st.integers(1, 4), st.booleans())
def test_global_lp_pool(seed: int, size: list[int], p: int, batched: bool) -> None:
    node = helper.make_node("GlobalLpPool", ["x"], ["y"], p=p)
    check(node, {"x": spread(seed, 2, 1, *size)}, ["x"], batched=["x"] * batched)


@pytest.mark.parametrize("strides", [[2, 2], [1, 1]])
def test_among_equal_values_the_first_in_row_major_order_is_the_maximum(strides: list[int]) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=strides)
    size = 4 if strides == [2, 2] else 3
    dy = np.array([[[[1, 2], [3, 4]]]], np.float32)
    found = rule_gradients([node], {"x": np.full((1, 1, size, size), 5, np.float32)}, dy, ["x"])["x"]
    due = np.zeros((1, 1, size, size), np.float32)
    due[0, 0, : 2 * strides[0] : strides[0], : 2 * strides[0] : strides[0]] = dy
    assert found.tolist() == due.tolist()


def first_of_the_largest(x: NDArray[Any], dy: NDArray[Any]) -> NDArray[Any]:
    """dy of every 2x2 window, at the first of its largest elements in row-major order."""
    due = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*dy.shape):
        window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), (2, 2))
        due[n, c, 2 * i + row, 2 * j + column] = dy[n, c, i, j]
    return due


@settings(max_examples=examples(30), deadline=None)
@given(seeds, st.integers(1, 5), st.integers(2, 9), st.integers(2, 9), st.booleans())
@example(0, 16, 32, 32, True)  # Samples large enough to be taken one at a time.
@example(0, 17, 33, 32, True)
def test_pairs_of_any_size_go_to_the_first_of_the_largest(
    seed: int, channels: int, rows: int, columns: int, batched: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (2, channels, rows, columns)).astype(np.float32)
    dy = rng.standard_normal((2, channels, rows // 2, columns // 2)).astype(np.float32)
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    found = rule_gradients([node], {"x": x}, dy, ["x"], batched=["x"] * batched)["x"]
    np.testing.assert_array_equal(found, first_of_the_largest(x, dy))


def test_equal_maxima_of_a_channel_share_its_gradient() -> None:
    x = np.array([[[1, 3, 3, 0], [2, 2, 2, 2]]], np.float32)
    dy = np.array([[[6], [8]]], np.float32)
    found = rule_gradients([helper.make_node("GlobalMaxPool", ["x"], ["y"])], {"x": x}, dy, ["x"])["x"]
    assert found.tolist() == [[[0, 3, 3, 0], [2, 2, 2, 2]]]


def test_a_window_of_zeros_has_no_gradient_of_its_norm() -> None:
    node = helper.make_node("LpPool", ["x"], ["y"], kernel_shape=[2], strides=[2])
    x = np.array([[[0, 0, 3, 4]]], np.float32)
    found = rule_gradients([node], {"x": x}, np.array([[[1, 5]]], np.float32), ["x"])["x"]
    np.testing.assert_allclose(found, [[[0, 0, 3, 4]]], rtol=1e-6)


@pytest.mark.parametrize("settings", [{"dilations": [2], "strides": [3]}, {"strides": [3]}])
def test_padding_that_onnxruntime_sets_otherwise_than_the_standard_is_refused(
    settings: dict[str, Any],
) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], auto_pad="SAME_UPPER", **settings)
    with pytest.raises(ModelError, match="explicit pads"):
        rule_gradients([node], {"x": spread(0, 1, 1, 9)}, np.ones((1, 1, 3), np.float32), ["x"])


@pytest.mark.torch
@quick
@given(seeds, st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans())
def test_autograd_agrees_also_on_ties(
    seed: int, kernel: int, stride: int, padded: bool, ceil: bool, average: bool
) -> None:
    torch = pytest.importorskip("torch")
    pad = kernel // 2 if padded else 0
    assume(not ceil or all(-(-(n + 2 * pad - kernel) // stride) * stride < n + pad for n in (7, 6)))
    x = np.random.default_rng(seed).integers(-1, 2, (2, 3, 7, 6)).astype(np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    apply = torch.nn.functional.avg_pool2d if average else torch.nn.functional.max_pool2d
    y = apply(leaf, kernel, stride, pad, ceil_mode=ceil)
    dy = np.random.default_rng(seed).standard_normal(y.shape).astype(np.float32)
    y.backward(torch.tensor(dy))
    attributes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    attributes |= {"ceil_mode": int(ceil)} | ({"count_include_pad": 1} if average else {})
    node = helper.make_node("AveragePool" if average else "MaxPool", ["x"], ["y"], **attributes)
    found = rule_gradients([node], {"x": x}, dy, ["x"])["x"]
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-5, atol=1e-5)
