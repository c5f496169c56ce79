"""Operators that are written as others when a file is read: diagonals, pooling with gaps, batch first."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import NodeProto
from read_models import agree, run_file, run_source
from small_models import Weights, node, normal, onnx_file

from laconic.errors import ModelError
from laconic.training.check import check_gradients
from laconic.training.plan import plan
from laconic.training.source import Source, load
from often import examples


def behind_a_weight(n: NodeProto, constants: Weights, shape: tuple[int, ...], opset: int = 18) -> bytes:
    """The node on x times a weight: a gradient passes through it."""
    nodes = [node("Mul", ["x", "w0"], ["x1"]), n]
    return onnx_file(
        nodes, {"w0": normal(8, shape[-1]), **constants}, ("n", *shape[1:]), opset=opset, output=n.output[0]
    )


def operators(source: Source) -> set[str]:
    return {n.op_type for n in source.nodes}


@settings(max_examples=examples(60), deadline=None)
@given(
    rank=st.integers(1, 3),
    size=st.integers(4, 9),
    window=st.integers(1, 3),
    stride=st.integers(1, 3),
    gap=st.integers(1, 2),
    before=st.integers(0, 2),
    after=st.integers(0, 2),
    more=st.fixed_dictionaries(
        {
            "ceil_mode": st.integers(0, 1),
            "count_include_pad": st.integers(0, 1),
            "auto_pad": st.sampled_from(["NOTSET", "VALID"]),
        }
    ),
)
def test_average_pool_of_opset_19_is_a_convolution(
    rank: int, size: int, window: int, stride: int, gap: int, before: int, after: int, more: dict[str, Any]
) -> None:
    assume(max(before, after) < window)
    assume((window - 1) * gap + 1 <= size)
    if more["auto_pad"] == "NOTSET":
        more = {**more, "pads": [before] * rank + [after] * rank}
    n = node(
        "AveragePool",
        ["x1"],
        ["y"],
        kernel_shape=[window] * rank,
        strides=[stride] * rank,
        dilations=[gap] * rank,
        **more,
    )
    shape = (2, 3, *[size] * rank)
    source = agree(behind_a_weight(n, {}, shape, 19), {"x": normal(1, *shape)})
    if gap > 1 or (more["ceil_mode"] and more["count_include_pad"]):
        assert "Conv" in operators(source)
        assert "AveragePool" not in operators(source)


def test_automatic_padding_with_gaps_is_refused_as_onnxruntime_refuses_it() -> None:
    how = {"kernel_shape": [2, 3], "dilations": [2, 2], "auto_pad": "SAME_UPPER"}
    file = behind_a_weight(node("AveragePool", ["x1"], ["y"], **how), {}, (2, 1, 7, 8), 19)
    with pytest.raises(ModelError, match="export with numbers as pads"):
        load(file)


def test_pooling_with_gaps_asks_for_samples_of_known_size() -> None:
    pool = node("AveragePool", ["x1"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])
    nodes = [node("Mul", ["x", "w0"], ["x1"]), pool]
    file = onnx_file(nodes, {"w0": normal(8, 3, 1, 1)}, ("n", 3, "h", 6), opset=19)
    with pytest.raises(ModelError, match="input_shapes") as caught:
        load(file)
    assert "'y'" in caught.value.thing
    assert "Conv" in operators(load(file, input_shapes={"x": (3, 6, 6)}))


@pytest.mark.parametrize(
    ("equation", "shape"),
    [
        ("bii->bi", (2, 3, 3)),
        ("bii", (2, 3, 3)),
        ("...ii->...i", (2, 4, 3, 3)),
        ("...ii", (2, 4, 3, 3)),
        ("biji->bj", (2, 3, 4, 3)),
        ("biii->b", (2, 3, 3, 3)),
        ("bijij->ijb", (2, 3, 2, 3, 2)),
        (" b i i , i j -> b j ", (2, 3, 3)),
    ],
)
def test_a_letter_twice_in_einsum_is_a_diagonal(equation: str, shape: tuple[int, ...]) -> None:
    two = "," in equation
    n = node("Einsum", ["x1", *["m"] * two], ["y"], equation=equation)
    constants = {"m": normal(3, 3, 4)} if two else {}
    file, x = behind_a_weight(n, constants, shape), normal(1, *shape)
    source = load(file)
    (found,) = run_source(source, {"x": x})
    operands = [x * normal(8, shape[-1]), *constants.values()]
    due = np.einsum(equation.replace(" ", ""), *operands)
    np.testing.assert_allclose(found, due, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "gates", "output"),
    [
        ("RNN", 1, 0),
        ("RNN", 1, 1),
        ("GRU", 3, 0),
        ("GRU", 3, 1),
        ("LSTM", 4, 0),
        ("LSTM", 4, 1),
        ("LSTM", 4, 2),
    ],
)
def test_batch_first_is_length_first_turned(op: str, gates: int, direction: str, output: int) -> None:
    """onnxruntime has no kernel for the batch first: the same layer, length first, says what is due."""
    ways, hidden, features, batch, steps = 1 + (direction == "bidirectional"), 3, 4, 2, 5
    weights = {
        "w": normal(1, ways, gates * hidden, features),
        "r": normal(2, ways, gates * hidden, hidden),
        "b": normal(3, ways, 2 * gates * hidden),
    }
    start = normal(4, 1, ways, hidden)
    extra = {"direction": direction, "hidden_size": hidden}
    outputs = [*[""] * output, "y"]
    n = node(op, ["x1", "w", "r", "b", "", "h"], outputs, layout=1, **extra)
    nodes = [node("Mul", ["x", "w0"], ["x1"]), n]
    scale = normal(8, features)
    # Traced with one sample: the initial state is repeated for others.
    file = onnx_file(nodes, {"w0": scale, **weights, "h": start}, (1, steps, features))
    x = normal(9, batch, steps, features)
    (found,) = run_source(load(file), {"x": x})
    turned = node(op, ["x", "w", "r", "b", "", "h"], outputs, **extra)
    plain = onnx_file(
        [turned], {**weights, "h": np.repeat(start, batch, 0).transpose(1, 0, 2)}, (steps, batch, features)
    )
    (due,) = run_file(plain, {"x": np.ascontiguousarray((x * scale).transpose(1, 0, 2))})
    back = due.transpose(1, 0, 2) if output else due.transpose(2, 0, 1, 3)
    np.testing.assert_allclose(found, back, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("target", [(2, 3, 4, 5), (2, 3, 4, 5, 2)])
def test_a_function_with_branches_reads_the_tensors_around_them(
    corners: int, target: tuple[int, ...]
) -> None:
    """The body of AffineGrid has branches, one inside another."""
    rank = len(target) - 2
    n = node("AffineGrid", ["x1", "size"], ["y"], align_corners=corners)
    nodes = [node("Mul", ["x", "w0"], ["x1"]), n]
    weights: Weights = {"w0": normal(8, rank + 1), "size": np.array(target, np.int64)}
    file = onnx_file(nodes, weights, (2, rank, rank + 1), opset=20)
    agree(file, {"x": normal(1, 2, rank, rank + 1)})


def test_a_refused_body_is_refused_by_the_name_in_the_file() -> None:
    n = node(
        "LinearAttention", ["x1", "x1", "x1"], ["y", "s"], q_num_heads=1, kv_num_heads=1, update_rule="linear"
    )
    if not onnx.defs.has("LinearAttention"):
        pytest.skip("this onnx has no LinearAttention")
    nodes = [node("Mul", ["x", "w0"], ["x1"]), n]
    with pytest.raises(ModelError, match=r"LinearAttention.*'y'"):
        load(onnx_file(nodes, {"w0": normal(8, 4)}, ("n", 3, 4), opset=27))


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_without_a_mask_is_two_products_and_a_softmax(causal: int) -> None:
    """The body of the standard has shared keys and rows that are masked as a whole for the general case."""
    file = behind_a_weight(node("Attention", ["x1"] * 3, ["y"], is_causal=causal), {}, (2, 3, 4, 6), 24)
    source = agree(file, {"x": normal(9, 2, 3, 4, 6)})
    kinds = Counter(n.op_type for n in source.nodes)
    assert kinds["MatMul"] == 2
    assert kinds["Softmax"] == 1
    assert not kinds.keys() & {"Where", "Expand", "Unsqueeze", "Reshape"}
    assert kinds["Add"] == causal


def test_rows_that_are_masked_as_a_whole_do_not_spoil_gradients() -> None:
    mask = np.array([[True, False, True], [False, False, False]])
    n = node("Attention", ["x1", "k", "v", "m"], ["y"])
    weights = {"w0": normal(8, 6), "k": normal(1, 1, 1, 3, 6), "v": normal(2, 1, 1, 3, 6), "m": mask}
    file = onnx_file([node("Mul", ["x", "w0"], ["x1"]), n], weights, (1, 1, 2, 6), opset=24)
    found = check_gradients(plan(file, loss="mse"), batch=1)
    assert {p.name for p in found} >= {"w0", "k", "v"}
    assert all(p.ok for p in found), found


def test_zeros_are_added_where_they_widen() -> None:
    n = node("Add", ["x1", "z"], ["y"])
    for shape, added in (((4,), False), ((3, 1), False), ((2, 1, 3, 4), True)):
        # Zeros of real numbers would be weights.
        zeros = node("Cast", ["b"], ["z"], to=1)
        constants = {"w0": normal(8, 4), "b": np.zeros(shape, bool)}
        file = onnx_file([node("Mul", ["x", "w0"], ["x1"]), zeros, n], constants, ("n", 3, 4))
        assert ("Add" in operators(agree(file, {"x": normal(1, 1, 3, 4)}))) == added
