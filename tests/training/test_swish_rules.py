"""Laws of Swish."""

from __future__ import annotations

import numpy as np
import pytest
from gradient_check import check, rule_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from often import examples

COVERED: dict[str, str] = {"Swish": "test_swish"}

quick = settings(max_examples=examples(20), deadline=None)
seeds = st.integers(0, 2**16)


@quick
@given(seeds, st.sampled_from([None, 1.0, 1.702, -0.5]), st.booleans())
def test_swish(seed: int, alpha: float | None, batched: bool) -> None:
    x = np.random.default_rng(seed).normal(0, 2, (3, 5)).astype(np.float32)
    node = helper.make_node("Swish", ["x"], ["y"], **({} if alpha is None else {"alpha": alpha}))
    factor = 1.0 if alpha is None else float(np.float32(alpha))

    def exact(feeds: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        y: NDArray[np.float64] = feeds["x"] / (1 + np.exp(-factor * feeds["x"]))
        return y

    check(node, {"x": x}, ["x"], batched=["x"] if batched else [], forward=exact)


@pytest.mark.torch
def test_swish_is_pytorchs_silu_also_far_from_zero() -> None:
    torch = pytest.importorskip("torch")
    x = np.array([-1e30, -200, -80, -10, -1e-30, 0, 1e-30, 10, 80, 200, 1e30], np.float32)
    node = helper.make_node("Swish", ["x"], ["y"])
    found = rule_gradients([node], {"x": x}, np.ones_like(x), ["x"])["x"]
    tensor = torch.tensor(x).double().requires_grad_()
    torch.nn.functional.silu(tensor).sum().backward()
    np.testing.assert_allclose(found, tensor.grad.numpy(), atol=1e-6)
