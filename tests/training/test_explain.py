"""Laws of `laconic prepare --explain`: what is counted is what a step of that batch does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import node, normal, onnx_file, perceptron

from laconic.training import explained, plan
from often import examples


@settings(max_examples=examples(12), deadline=None)
@given(
    kind=st.sampled_from([("LSTM", 4), ("GRU", 3), ("RNN", 1)]),
    hidden=st.sampled_from([8, 32, 64]),
    batch=st.sampled_from([1, 8, 64]),
)
def test_a_step_of_a_recurrent_layer_takes_some_times_its_forward_pass(
    kind: tuple[str, int], hidden: int, batch: int
) -> None:
    """Three times, and what is computed anew: also where the batch decides how a step is computed."""
    op, gates = kind
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node(op, ["t", "w", "r", "b"], ["", "h"], hidden_size=hidden),
        node("Squeeze", ["h", "zero"], ["s"]),
        node("Gemm", ["s", "v"], ["y"]),
    ]
    weights = {
        "w": normal(0, 1, gates * hidden, 8),
        "r": normal(1, 1, gates * hidden, hidden),
        "b": normal(2, 1, 2 * gates * hidden),
        "v": normal(3, hidden, 5),
        "zero": np.array([0]),
    }
    found = explained(plan(onnx_file(nodes, weights, ("n", 20, 8))), batch=batch)
    layer = 2 * 20 * batch * gates * hidden * (8 + hidden)
    assert layer <= found.flops_forward <= 1.05 * layer + 20 * batch * hidden
    assert 2.5 * found.flops_forward <= found.flops_step <= 6 * found.flops_forward
    assert "If" not in found.backward


@pytest.mark.parametrize("batch", [1, 32])
def test_a_dense_network_is_counted_by_hand(batch: int) -> None:
    found = explained(plan(perceptron()), batch=batch)
    first, second = 2 * batch * 4 * 8, 2 * batch * 8 * 3
    assert found.flops_forward == first + second + 2 * batch * 8  # and a sum and a Relu of eight
    # Each weight's gradient takes what its product took, and so does that of what goes into the second.
    assert found.flops_step >= 2 * first + 3 * second
    assert found.update_bytes == 4 * found.trained == 4 * found.total == 4 * (4 * 8 + 8 + 8 * 3 + 3)
