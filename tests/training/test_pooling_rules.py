"""Laws of the gradient rules of pooling: they agree with central differences, for all windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from gradient_check import check, rule_gradients
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**16)

COVERED: dict[str, str] = {"MaxPool": "test_max_pool"}


def spread(seed: int, *shape: int) -> NDArray[np.float32]:
    """Distinct values, none near zero: no kink within reach of a central difference."""
    size = int(np.prod(shape))
    values = np.arange(size) - size // 2 + 0.5
    return (np.random.default_rng(seed).permutation(values) / 8).reshape(shape).astype(np.float32)


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
    attributes: dict[str, Any] = {"strides": steps, "dilations": [dilation] * rank, "pads": before + after}
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
