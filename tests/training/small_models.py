"""ONNX models of a few nodes, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from laconic.training.builder import value_info

Weights = Mapping[str, NDArray[Any]]
node = helper.make_node


def onnx_file(
    nodes: Sequence[NodeProto],
    weights: Weights,
    input_shape: Sequence[int | str],
    *,
    output: str = "y",
    output_shape: Sequence[int | str] | None = None,
    opset: int = 18,
    dtype: int = 1,
) -> bytes:
    """A model with one input `x` and one float32 output."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [value_info("x", dtype, tuple(input_shape))],
        [value_info(output, 1, None if output_shape is None else tuple(output_shape))],
        initializer=[numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    encoded: bytes = model.SerializeToString()
    return encoded


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    """Standard normal float32 values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax_regression(features: int = 5, classes: int = 3, seed: int = 0) -> bytes:
    """One dense layer: y = x W + b."""
    weights = {"W": normal(seed, features, classes), "b": normal(seed + 1, classes)}
    return onnx_file([node("Gemm", ["x", "W", "b"], ["y"])], weights, ("batch", features))


def perceptron(seed: int = 0) -> bytes:
    """Two dense layers with ReLU, the first as MatMul and Add: 4 features, 3 classes."""
    weights = {
        "w1": normal(seed, 4, 8),
        "b1": normal(seed + 1, 8),
        "w2": normal(seed + 2, 3, 8),
        "b2": normal(seed + 3, 3),
    }
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("Add", ["a", "b1"], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("Gemm", ["c", "w2", "b2"], ["y"], transB=1),
    ]
    return onnx_file(nodes, weights, ("batch", 4))
