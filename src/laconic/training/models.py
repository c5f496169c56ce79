"""Small ONNX models, built from numpy and a seed: for demos, benchmarks and tests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from laconic.training.assemble import IR_VERSION, OPSET
from laconic.training.builder import BATCH, value_info


def digits_cnn(seed: int = 0) -> bytes:
    """A convolutional network for 8x8 grey images of ten digits: about 206,000 parameters.

    Input `image`, float32 (batch, 1, 8, 8); output `logits`, float32 (batch, 10). Weights are drawn as in He
    et al., ICCV 2015, section 2.2; biases are zero. The same seed gives the same bytes.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float32]] = {}

    def layer(name: str, *shape: int) -> list[str]:
        deviation = math.sqrt(2 / math.prod(shape[1:]))
        weights[f"{name}.weight"] = (rng.standard_normal(shape) * deviation).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
        return [f"{name}.weight", f"{name}.bias"]

    nodes: list[NodeProto] = []

    def node(op_type: str, result: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, inputs, [result], name=result, **attributes))
        return result

    same: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    x = node("Conv", "conv1", "image", *layer("conv1", 16, 1, 3, 3), **same)
    x = node("Relu", "relu1", x)
    x = node("Conv", "conv2", x, *layer("conv2", 32, 16, 3, 3), **same)
    x = node("Relu", "relu2", x)
    x = node("MaxPool", "pool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = node("Flatten", "flat", x)
    x = node("Gemm", "hidden", x, *layer("dense1", 384, 512), transB=1)
    x = node("Relu", "relu3", x)
    node("Gemm", "logits", x, *layer("dense2", 10, 384), transB=1)
    graph = helper.make_graph(
        nodes,
        "digits_cnn",
        [value_info("image", TensorProto.FLOAT, (BATCH, 1, 8, 8))],
        [value_info("logits", TensorProto.FLOAT, (BATCH, 10))],
        initializer=[numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="laconic")
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded
