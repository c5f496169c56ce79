"""Files as exporters write them: PyTorch's at several opsets, and graphs in the shape of tf2onnx's."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import zoo
from read_models import agree, run_file, run_source
from small_models import node, normal, onnx_file

from laconic.training.source import load


@pytest.mark.torch
@pytest.mark.parametrize("fixed", [False, True], ids=["open batch", "batch of one"])
@pytest.mark.parametrize("opset", [11, 17, 20])
@pytest.mark.parametrize("name", ["mobilenet", "encoder", "lstm", "gru"])
def test_torchscript_exports_of_any_opset_take_any_batch(name: str, opset: int, fixed: bool) -> None:
    torch = pytest.importorskip("torch")
    model = zoo.ZOO[name]
    module = model.build(0).eval()
    axes: dict[str, Any] = {} if fixed else {"dynamic_axes": {"x": {0: "b"}, "y": {0: "b"}}}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.from_numpy(zoo.example(model, 1 if fixed else 2)),),
            stream,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            training=torch.onnx.TrainingMode.PRESERVE,
            **axes,
        )
    x = model.data(5)[0]
    source = load(stream.getvalue())
    with torch.no_grad():
        due = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run_source(source, {"x": x})[0], due, rtol=1e-4, atol=1e-4)
    own = {n for n, _ in module.named_parameters()}
    weights = [p.name for p in source.parameters if p.kind == "weight"]
    if name == "mobilenet":
        assert set(weights) == own


def test_a_keras_network_of_convolutions() -> None:
    """NHWC data with Transposes around Conv, batch normalisation as Mul and Add, names with '/'."""
    nodes = [
        node("Mul", ["x", "rescaling/Cast/x:0"], ["scaled"]),
        node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        node("Conv", ["nchw", "conv/kernel:0", "conv/bias:0"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Mul", ["b", "batchnorm/mul:0"], ["c"]),
        node("Add", ["c", "const_fold_opt__51"], ["d"]),
        node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", ["e"], ["nhwc"], perm=[0, 2, 3, 1]),
        node("Shape", ["nhwc"], ["shape"]),
        node("Cast", ["shape"], ["shape/f"], to=1),
        node("Slice", ["shape/f", "zero", "one", "zero"], ["n"]),
        node("Cast", ["rest"], ["rest/f"], to=1),
        node("Concat", ["n", "rest/f"], ["target/f"], axis=0),
        node("Cast", ["target/f"], ["target:0"], to=7),
        node("Reshape", ["nhwc", "target:0"], ["flat"]),
        node("MatMul", ["flat", "dense/kernel:0"], ["g"]),
        node("Add", ["g", "dense/bias:0"], ["h"]),
        node("Softmax", ["h"], ["y"], axis=1),
    ]
    weights = {
        "conv/kernel:0": normal(0, 4, 3, 3, 3),
        "conv/bias:0": normal(1, 4),
        "batchnorm/mul:0": normal(2, 1, 4, 1, 1),
        "const_fold_opt__51": normal(3, 1, 4, 1, 1),
        "dense/kernel:0": normal(4, 16, 5),
        "dense/bias:0": normal(5, 5),
    }
    constants = {
        "rescaling/Cast/x:0": np.array(1 / 255, np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "rest": np.array([16]),
    }
    file = onnx_file(nodes, {**weights, **constants}, ("unk__7", 4, 4, 3), opset=13)
    source = agree(file, {"x": normal(6, 7, 4, 4, 3)})
    assert [p.name for p in source.parameters] == list(weights)
    assert source.prediction("y", {"Softmax"}) == "h"
    assert [n.op_type for n in source.nodes].count("Shape") == 0


def test_a_keras_attention_over_tokens() -> None:
    """The sequence length stays open, and shapes are computed from it."""
    nodes = [
        node("Gather", ["table", "x"], ["e"]),
        node("Shape", ["e"], ["s"]),
        node("Slice", ["s", "zero", "two", "zero"], ["outer"]),
        node("Concat", ["outer", "heads"], ["split"], axis=0),
        node("MatMul", ["e", "query"], ["q"]),
        node("Reshape", ["q", "split"], ["q4"]),
        node("Transpose", ["q4"], ["qt"], perm=[0, 2, 1, 3]),
        node("Transpose", ["q4"], ["kt"], perm=[0, 2, 3, 1]),
        node("MatMul", ["qt", "kt"], ["scores"]),
        node("Softmax", ["scores"], ["p"], axis=3),
        node("MatMul", ["p", "qt"], ["mixed"]),
        node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        node("Concat", ["outer", "width"], ["join"], axis=0),
        node("Reshape", ["back", "join"], ["z"]),
        node("ReduceMean", ["z"], ["y"], axes=[1], keepdims=0),
    ]
    values = {
        "table": normal(0, 20, 8),
        "query": normal(1, 8, 8),
        "zero": np.array([0]),
        "two": np.array([2]),
        "heads": np.array([2, 4]),
        "width": np.array([8]),
    }
    file = onnx_file(nodes, values, ("n", "length"), opset=17, dtype=7)
    source = load(file)
    assert [n.op_type for n in source.nodes if n.op_type in ("Shape", "Concat", "Slice")] == []
    for length in (1, 6):
        x = {"x": np.random.default_rng(0).integers(0, 20, (3, length))}
        np.testing.assert_allclose(run_source(source, x)[0], run_file(file, x)[0], rtol=1e-5, atol=1e-6)
