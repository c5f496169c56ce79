"""A small convolutional network for windows of sensors' signals."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from laconic.errors import ConfigError
from laconic.training.assemble import IR_VERSION, OPSET
from laconic.training.builder import BATCH, value_info

_FILTERS: Final = (24, 32)
_WIDTH: Final = 9
_STRIDES: Final = (2, 4)
_POOLED: Final = 2
LEAST_READINGS: Final = 16
"""Of a shorter window the strides leave nothing to pool."""


def signal_cnn(channels: int, readings: int, classes: int, seed: int = 0) -> bytes:
    """A one-dimensional convolutional network: 9,806 parameters for 6 channels, 128 readings, 6 classes.

    Input `window`, float32 (batch, channels, readings); output `logits`, float32 (batch, classes). Its three
    layers are `conv1`, which sees the sensors, `conv2` and `head`: names by which some of it can stay on a
    device (`prepare(..., local=["conv1.*"])`). Weights are drawn as in He et al., ICCV 2015, section 2.2,
    those of the head with half the variance, as no ReLU follows; biases are zero. The same arguments give the
    same bytes. Raises `ConfigError` for windows that are too short.
    """
    if readings < LEAST_READINGS:
        raise ConfigError("readings in a window", value=readings, limit=f"{LEAST_READINGS} or more")
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float32]] = {}
    nodes: list[NodeProto] = []

    def layer(name: str, *shape: int, gain: float = 2.0) -> list[str]:
        deviation = math.sqrt(gain / math.prod(shape[1:]))
        weights[f"{name}.weight"] = (rng.standard_normal(shape) * deviation).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
        return [f"{name}.weight", f"{name}.bias"]

    def node(op_type: str, result: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, inputs, [result], name=result, **attributes))
        return result

    x, depth, length, margin = "window", channels, readings, _WIDTH // 2
    for number, (filters, stride) in enumerate(zip(_FILTERS, _STRIDES, strict=True), start=1):
        kernel = layer(f"conv{number}", filters, depth, _WIDTH)
        x = node(
            "Conv",
            f"sum{number}",
            x,
            *kernel,
            kernel_shape=[_WIDTH],
            strides=[stride],
            pads=[margin, margin],
        )
        x = node("Relu", f"relu{number}", x)
        depth, length = filters, (length - 1) // stride + 1
    x = node("MaxPool", "pooled", x, kernel_shape=[_POOLED], strides=[_POOLED])
    x = node("Flatten", "flat", x)
    node("Gemm", "logits", x, *layer("head", classes, depth * (length // _POOLED), gain=1.0), transB=1)
    graph = helper.make_graph(
        nodes,
        "signal_cnn",
        [value_info("window", TensorProto.FLOAT, (BATCH, channels, readings))],
        [value_info("logits", TensorProto.FLOAT, (BATCH, classes))],
        initializer=[numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="laconic")
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded
