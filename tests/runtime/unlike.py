"""A network whose training would tell any difference: its bits change with whatever a run must keep."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from laconic.runtime import Bundle
from laconic.training import prepare

FEATURES = 37
"""Odd: samples lie at every address, and onnxruntime's ReduceMean adds in another order at each."""

X = (np.random.default_rng(1).standard_normal((30, FEATURES)) * 100).astype(np.float32)
Y = np.arange(30) % 3


def unlike(*, local: bool = False, **arguments: Any) -> Bundle:
    """Mean and spread of the sample taken out of it, a layer, running statistics, dropout, a layer."""
    rng = np.random.default_rng(0)
    normal = {
        n: rng.standard_normal(s).astype(np.float32) for n, s in {"w": (FEATURES, 5), "v": (5, 3)}.items()
    }
    weights: dict[str, NDArray[Any]] = {
        **normal,
        "scale": np.ones(5, np.float32),
        "shift": np.zeros(5, np.float32),
        "mean": np.zeros(5, np.float32),
        "var": np.ones(5, np.float32),
        "axes": np.array([1], np.int64),
        "ratio": np.array(0.25, np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["middle"], keepdims=1),
        helper.make_node("Sub", ["x", "middle"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("BatchNormalization", ["b", "scale", "shift", "mean", "var"], ["c"], momentum=0.75),
        helper.make_node("Dropout", ["c", "ratio"], ["d"]),
        helper.make_node("MatMul", ["d", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "unlike",
        [helper.make_tensor_value_info("x", 1, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", 1, ["batch", 3])],
        initializer=[numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Bundle.read(prepare(model.SerializeToString(), local=["v"] if local else [], **arguments))
