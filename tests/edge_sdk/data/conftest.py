"""Bundles that the tests of data share; made once, since making them is not what is tested."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from laconic.runtime import Bundle
from laconic.training import prepare


@pytest.fixture(scope="session")
def linear_file() -> bytes:
    """Input `x` (2 values), three classes: a record of it has 36 bytes."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
            initializer=[
                helper.make_tensor("w", TensorProto.FLOAT, (2, 3), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
                helper.make_tensor("b", TensorProto.FLOAT, (3,), [0.0, 0.0, 0.0]),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    return prepare(model.SerializeToString())


@pytest.fixture(scope="session")
def linear(linear_file: bytes) -> Bundle:
    """The same, read."""
    return Bundle.read(linear_file)
