"""Laws of exchanging operators: values and gradients stay as they were, ties included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradient_check import reference, rule_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, shape_inference

from laconic.training.builder import value_info
from laconic.training.inferred import tensor_types
from laconic.training.reordering import pooled_first
from often import examples

SIZE = (2, 3, 4, 6)

pools = st.one_of(
    st.just(helper.make_node("GlobalMaxPool", ["cut"], ["y"])),
    st.builds(
        lambda kernel, strides, pad: helper.make_node(
            "MaxPool", ["cut"], ["y"], kernel_shape=[kernel] * 2, strides=[strides] * 2, pads=[pad] * 4
        ),
        kernel=st.integers(2, 3),
        strides=st.integers(1, 3),
        pad=st.integers(0, 1),
    ),
)
RELU = helper.make_node("Relu", ["x"], ["cut"])


def graph(nodes: list[NodeProto]) -> Any:
    real = TensorProto.FLOAT
    made = helper.make_graph(
        nodes, "g", [value_info("x", real, SIZE)], [value_info(nodes[-1].output[0], real, None)]
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])


def exchanged(nodes: list[NodeProto], kept: list[str]) -> list[NodeProto]:
    return pooled_first(nodes, tensor_types(shape_inference.infer_shapes(graph(nodes)).graph), kept)[0]


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 2**16), pools)
def test_values_and_gradients_are_the_same_to_the_last_bit(seed: int, pool: NodeProto) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, SIZE).astype(np.float32)
    before = [RELU, pool]
    after = exchanged(before, ["y"])
    assert [n.op_type for n in after] == [pool.op_type, "Relu"]
    one, other = (reference(nodes, {"x": x})({"x": x}) for nodes in (before, after))
    np.testing.assert_array_equal(one, other)
    dy = rng.integers(-8, 9, one.shape).astype(np.float32)
    due, found = (rule_gradients(n, {"x": x}, dy, ["x"])["x"] for n in (before, after))
    np.testing.assert_array_equal(found, due)


@given(pools)
def test_the_tensor_between_gets_the_shape_of_the_result(pool: NodeProto) -> None:
    nodes = [RELU, pool]
    inferred = tensor_types(shape_inference.infer_shapes(graph(nodes)).graph)
    _, changed = pooled_first(nodes, inferred, ["y"])
    assert changed == {"cut": inferred["y"]}


@given(pools)
def test_a_second_run_changes_nothing(pool: NodeProto) -> None:
    once = exchanged([RELU, pool], ["y"])
    assert exchanged(once, ["y"]) == once


@pytest.mark.parametrize(
    ("nodes", "kept"),
    [
        (
            [
                RELU,
                helper.make_node("Neg", ["cut"], ["other"]),
                helper.make_node("MaxPool", ["cut"], ["y"], kernel_shape=[2, 2]),
            ],
            ["y", "other"],
        ),
        (
            [
                RELU,
                helper.make_node("MaxPool", ["cut"], ["y"], kernel_shape=[2, 2]),
            ],
            ["y", "cut"],
        ),
        (
            [
                RELU,
                helper.make_node("MaxPool", ["cut"], ["y", "where"], kernel_shape=[2, 2]),
            ],
            ["y", "where"],
        ),
        (
            [
                RELU,
                helper.make_node("AveragePool", ["cut"], ["y"], kernel_shape=[2, 2]),
            ],
            ["y"],
        ),
        (
            [
                helper.make_node("LeakyRelu", ["x"], ["cut"]),
                helper.make_node("MaxPool", ["cut"], ["y"], kernel_shape=[2, 2]),
            ],
            ["y"],
        ),
        (
            [
                helper.make_node("Abs", ["x"], ["cut"]),
                helper.make_node("MaxPool", ["cut"], ["y"], kernel_shape=[2, 2]),
            ],
            ["y"],
        ),
    ],
    ids=["used twice", "an output", "with indices", "a mean", "other ties", "not monotone"],
)
def test_what_has_another_use_or_another_meaning_stays(nodes: list[NodeProto], kept: list[str]) -> None:
    assert exchanged(nodes, kept) == nodes
