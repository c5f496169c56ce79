"""Bundles that the runtime's tests share; made once, since making them is not what is tested."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from laconic.runtime import Bundle
from laconic.training import prepare


@pytest.fixture(scope="session")
def bundle_file() -> bytes:
    """A bundle of a small network: input `x` (4 features), 3 classes, 67 weights."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 8), "b1": (8,), "w2": (8, 3), "b2": (3,)}
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w2", "b2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", 1, ["batch", 4])],
        [helper.make_tensor_value_info("y", 1, ["batch", 3])],
        initializer=[numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return prepare(model.SerializeToString())


@pytest.fixture(scope="session")
def bundle(bundle_file: bytes) -> Bundle:
    """The same, read."""
    return Bundle.read(bundle_file)
