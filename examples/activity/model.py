"""The model of the example: a 1-D convolutional network over windows of 128 x 6, by onnx's helper."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from window import ACTIVITIES, CHANNELS, STEPS

# Means and deviations of the six channels, in g and rad/s, as anybody's day may have them.
MEAN = np.array([0.8, 0.0, 0.1, 0.0, 0.0, 0.0], np.float32)
DEVIATION = np.array([0.4, 0.4, 0.4, 0.5, 0.5, 0.5], np.float32)


def build(seed: int = 0) -> bytes:
    """An ONNX file: input `window`, float32 (batch, 128, 6), acceleration in g and rotation in rad/s, as they
    come from the sensor; output `logits`, float32 (batch, 6), one for each of `ACTIVITIES`."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {"scale": 1 / DEVIATION, "shift": -MEAN / DEVIATION}
    nodes = []

    def node(op: str, output: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def layer(name: str, *shape: int) -> tuple[str, str]:
        # He et al., ICCV 2015, section 2.2.
        deviation = math.sqrt(2 / math.prod(shape[1:]))
        weights[f"{name}.weight"] = rng.normal(0, deviation, shape).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
        return f"{name}.weight", f"{name}.bias"

    x = node("Mul", "scaled", "window", "scale")
    x = node("Add", "centred", x, "shift")
    x = node("Transpose", "channels_first", x, perm=[0, 2, 1])
    for name, outputs, inputs, width in (("a", 32, CHANNELS, 9), ("b", 48, 32, 5), ("c", 64, 48, 3)):
        pads = [width // 2, width // 2]
        x = node("Conv", name, x, *layer(name, outputs, inputs, width), kernel_shape=[width], pads=pads)
        x = node("Relu", f"{name}.relu", x)
        x = node("MaxPool", f"{name}.pool", x, kernel_shape=[2], strides=[2])
    x = node("GlobalAveragePool", "mean", x)
    x = node("Flatten", "features", x)
    node("Gemm", "logits", x, *layer("head", len(ACTIVITIES), 64), transB=1)

    graph = helper.make_graph(
        nodes,
        "activity",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", STEPS, CHANNELS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(ACTIVITIES)])],
        initializer=[numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded
