"""The models that are trained: LeNet, a 1-D CNN and an MLP as ONNX files made here, and initial weights."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from laconic.schema import Schema, Vector
from laconic.training.assemble import IR_VERSION, OPSET
from laconic.training.builder import BATCH, value_info


class _Layers:
    """A chain of layers, each reading what the one before it wrote."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self._name = name
        self._input = value_info("x", TensorProto.FLOAT, (BATCH, *shape))
        self._nodes: list[Any] = []
        self._weights: dict[str, NDArray[np.float32]] = {}
        self._last = "x"

    def add(self, kind: str, weight: tuple[int, ...] = (), name: str = "", **attributes: Any) -> _Layers:
        """One node; with `weight`, that shape and a bias for its first axis are parameters called `name`."""
        inputs = [self._last]
        if weight:
            self._weights[f"{name}.weight"] = np.zeros(weight, np.float32)
            self._weights[f"{name}.bias"] = np.zeros(weight[0], np.float32)
            inputs += [f"{name}.weight", f"{name}.bias"]
        self._last = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [self._last], **attributes))
        return self

    def file(self, classes: int) -> bytes:
        """The chain as an ONNX model with weights of zero and logits of shape (batch, `classes`)."""
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [self._input],
            [value_info(self._last, TensorProto.FLOAT, (BATCH, classes))],
            initializer=[numpy_helper.from_array(w, n) for n, w in self._weights.items()],
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        encoded: bytes = model.SerializeToString(deterministic=True)
        return encoded


def lenet() -> bytes:
    """LeCun et al., Proc. IEEE 1998, with ReLU and max pooling: 61,706 parameters, images of 28x28."""
    pool: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    net = _Layers("lenet", (1, 28, 28))
    net.add("Conv", (6, 1, 5, 5), "conv1", kernel_shape=[5, 5], pads=[2] * 4)
    net.add("Relu").add("MaxPool", **pool)
    net.add("Conv", (16, 6, 5, 5), "conv2", kernel_shape=[5, 5])
    net.add("Relu").add("MaxPool", **pool)
    net.add("Flatten").add("Gemm", (120, 400), "dense1", transB=1).add("Relu")
    net.add("Gemm", (84, 120), "dense2", transB=1).add("Relu").add("Gemm", (10, 84), "dense3", transB=1)
    return net.file(10)


def har_cnn() -> bytes:
    """Convolutions over windows of 6 x 128 sensor readings and two dense layers: 144,166 parameters."""
    pool: dict[str, Any] = {"kernel_shape": [4], "strides": [4]}
    net = _Layers("har_cnn", (6, 128))
    net.add("Conv", (32, 6, 5), "conv1", kernel_shape=[5], pads=[2, 2]).add("Relu").add("MaxPool", **pool)
    net.add("Conv", (64, 32, 5), "conv2", kernel_shape=[5], pads=[2, 2]).add("Relu").add("MaxPool", **pool)
    net.add("Flatten").add("Gemm", (256, 512), "dense1", transB=1).add("Relu")
    return net.add("Gemm", (6, 256), "dense2", transB=1).file(6)


def mlp() -> bytes:
    """The "2NN" of McMahan et al., AISTATS 2017, section 3: nothing but dense layers, 199,210 parameters."""
    net = _Layers("mlp", (1, 28, 28)).add("Flatten")
    net.add("Gemm", (200, 784), "dense1", transB=1).add("Relu")
    net.add("Gemm", (200, 200), "dense2", transB=1).add("Relu")
    return net.add("Gemm", (10, 200), "dense3", transB=1).file(10)


def digits_mlp() -> bytes:
    """64 grey values, 64 units, ten digits: 4,810 parameters, and a round of 50 devices in 0.1 s."""
    net = _Layers("digits_mlp", (1, 8, 8)).add("Flatten")
    net.add("Gemm", (64, 64), "dense1", transB=1).add("Relu")
    return net.add("Gemm", (10, 64), "dense2", transB=1).file(10)


Drawn = Literal["he", "lecun"]
"""How initial weights are drawn."""


def initial(schema: Schema, seed: int, drawn: Drawn = "he") -> Vector:
    """Initial parameters; the schema names a layer's `layer.weight` (outputs on axis 0) and `layer.bias`.

    "he": weights normal with variance 2 / inputs, biases zero (He et al., ICCV 2015, section 2.2), with which
    all tasks learn from the first rounds. "lecun": weights and biases uniform within 1 / sqrt(inputs), as
    PyTorch's layers are drawn: the deviation is 0.4 of the other's, and a LeNet with 90 % of one class a
    device hardly learns for 20 rounds.
    """
    rng = np.random.default_rng([seed, 2])
    inputs = {t.name.rpartition(".")[0]: math.prod(t.shape[1:]) for t in schema.tensors if len(t.shape) > 1}
    parts = []
    for tensor in schema.tensors:
        count = inputs[tensor.name.rpartition(".")[0]]
        if drawn == "lecun":
            values = rng.uniform(-1, 1, tensor.size) / math.sqrt(count)
        else:
            values = rng.standard_normal(tensor.size) * (math.sqrt(2 / count) if len(tensor.shape) > 1 else 0)
        parts.append(values.astype(np.float32))
    return np.concatenate(parts)
