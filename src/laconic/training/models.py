"""Small ONNX models, built from numpy and a seed: for demos, benchmarks and tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    return _encoded("digits_cnn", nodes, ("image", (1, 8, 8)), ("logits", 10), weights)


def mlp(
    shape: Sequence[int], outputs: int, hidden: Sequence[int], seed: int = 0, *, from_zero: bool = False
) -> bytes:
    """Dense layers with ReLU between them, for samples of any shape: `hidden` widths, then `outputs`.

    Input `x`, float32 (batch, *shape), is flattened; output `output`, float32 (batch, outputs): logits, or
    values to be regressed. Weights are drawn as in He et al., ICCV 2015, section 2.2, those of the last layer
    with half the variance, as no ReLU follows; biases are zero. Without hidden layers it is linear and all
    zero. With `from_zero` the last layer is zero, and the model's first answer to whatever it is shown: where
    values are regressed, steps may be several times as large before training diverges. The same seed gives
    the same bytes.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float32]] = {}
    nodes = [helper.make_node("Flatten", ["x"], ["flat"], name="flat")]
    before, size = "flat", math.prod(shape)
    for number, width in enumerate([*hidden, outputs], start=1):
        name, last = f"dense{number}", number > len(hidden)
        zero = not hidden or (last and from_zero)
        deviation = 0.0 if zero else math.sqrt((1 if last else 2) / size)
        weights[f"{name}.weight"] = (rng.standard_normal((width, size)) * deviation).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(width, np.float32)
        result = "output" if last else f"sum{number}"
        parts = [before, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", parts, [result], name=name, transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [result], [f"relu{number}"], name=f"relu{number}"))
        before, size = f"relu{number}", width
    return _encoded("mlp", nodes, ("x", tuple(shape)), ("output", outputs), weights)


def _encoded(
    name: str,
    nodes: Sequence[NodeProto],
    sample: tuple[str, tuple[int, ...]],
    output: tuple[str, int],
    weights: Mapping[str, NDArray[np.float32]],
) -> bytes:
    """A model's bytes: one input of samples of a shape, one output of so many values a sample."""
    graph = helper.make_graph(
        nodes,
        name,
        [value_info(sample[0], TensorProto.FLOAT, (BATCH, *sample[1]))],
        [value_info(output[0], TensorProto.FLOAT, (BATCH, output[1]))],
        initializer=[numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="laconic")
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded
