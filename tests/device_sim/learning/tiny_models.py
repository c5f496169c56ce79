"""Tiny ONNX models, and jobs on random data for them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from laconic.device_sim.learning import Job
from laconic.runtime import Bundle
from laconic.training import prepare

FEATURES, CLASSES = 6, 4


def dense(*sizes: int, activation: str = "Relu", softmax: bool = False, flat: bool = True) -> bytes:
    """Dense layers from `x`; the first as MatMul and Add. With `flat` False, `x` has two axes."""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {}
    nodes: list[NodeProto] = []
    x = "x"
    if not flat:
        nodes.append(helper.make_node("Flatten", ["x"], ["flattened"]))
        x = "flattened"
    for i, (wide, narrow) in enumerate(itertools.pairwise(sizes)):
        matrix = (rng.standard_normal((wide, narrow)) / np.sqrt(wide)).astype(np.float32)
        weights[f"b{i}"] = rng.standard_normal(narrow).astype(np.float32)
        if i == 0:
            weights[f"w{i}"] = matrix
            nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]))
            nodes.append(helper.make_node("Add", [f"m{i}", f"b{i}"], [f"z{i}"]))
        else:
            weights[f"w{i}"] = np.ascontiguousarray(matrix.T)
            nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"z{i}"], transB=1))
        x = f"z{i}"
        if i < len(sizes) - 2:
            nodes.append(helper.make_node(activation, [x], [f"a{i}"]))
            x = f"a{i}"
    if softmax:
        nodes.append(helper.make_node("Softmax", [x], ["p"]))
        x = "p"
    shape = ["N", sizes[0]] if flat else ["N", 2, sizes[0] // 2]
    return _model(nodes, weights, shape, x, ["N", sizes[-1]])


def convolution() -> bytes:
    """A convolution and a dense layer: nothing that can be stacked."""
    weights = {
        "k": np.ones((2, 1, 3, 3), np.float32),
        "w": np.ones((2 * 16, CLASSES), np.float32) / 32,
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    return _model(nodes, weights, ["N", 1, 6, 6], "y", ["N", CLASSES])


def _model(nodes: list[NodeProto], weights: dict[str, Any], x: list[Any], out: str, y: list[Any]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, y)],
        initializer=[numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    encoded: bytes = model.SerializeToString()
    return encoded


@cache
def perceptron(optimizer: str = "sgd") -> Bundle:
    """Two layers, cross-entropy."""
    return Bundle.read(prepare(dense(FEATURES, 5, CLASSES), optimizer=optimizer))


def jobs_for(bundle: Bundle, samples: Sequence[int], **settings: Any) -> list[Job]:
    """One job for each number of samples, each with weights, data and seed of its own."""
    made = []
    target = bundle.manifest.targets[0]
    for i, count in enumerate(samples):
        rng = np.random.default_rng([i, count])
        shape = tuple(d or 1 for d in bundle.manifest.inputs[0].shape)
        y: Any = rng.random((count, *(d or 1 for d in target.shape)), np.float32)
        if target.classes:
            y = rng.integers(0, target.classes, count)
        start = bundle.initial + 0.1 * rng.standard_normal(bundle.schema.size).astype(np.float32)
        arguments = {"epochs": 2, "batch_size": 4, "learning_rate": 0.05 + 0.01 * i, "seed": 100 + i}
        x = rng.standard_normal((count, *shape)).astype(np.float32)
        made.append(Job(start, x, y, **(arguments | settings)))
    return made
