"""Time of a training step with gradients from onnx-ad, which has no optimizer: weights move in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ad
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from worker import Task, seconds_per_step, serve


def main() -> None:
    """Serve measurements of `step`."""
    task = Task.given()
    x, y = task.data()
    model = onnx.load(str(task.folder / f"{task.model}.onnx"))
    model = _with_batch(model, task.batch)
    weights = _lifted(model)
    if task.loss == "mse":
        wanted = y
        _with_loss(
            model, [("Sub", ["y", "target"], "d"), ("Mul", ["d", "d"], "each")], (task.batch, *y.shape[1:])
        )
        scale = 1 / (task.batch * y[0].size)
    else:
        wanted = np.eye(int(y.max()) + 1, dtype=np.float32)[y]
        nodes = [("LogSoftmax", ["y"], "p"), ("Neg", ["target"], "n"), ("Mul", ["p", "n"], "each")]
        _with_loss(model, nodes, (task.batch, *wanted.shape[1:]))
        scale = 1 / task.batch
    adjoint = onnx_ad.reverse(model, inputs=list(weights), outputs=["loss"], layout="onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(adjoint.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seed = {i.name: i.shape for i in session.get_inputs() if i.name.startswith("adj_")}
    (seed_name, seed_shape) = next(iter(seed.items()))
    one = np.full([1 if not isinstance(d, int) else d for d in seed_shape], scale, np.float32)
    names = ["loss", *(f"adj_{n}" for n in weights)]
    batches = [(x[rows], wanted[rows]) for rows in task.batches()]

    def step(i: int) -> None:
        inputs, target = batches[i % len(batches)]
        _, *found = session.run(names, {"x": inputs, "target": target, seed_name: one, **weights})
        for weight, gradient in zip(weights.values(), found, strict=True):
            weight -= task.learning_rate * gradient.reshape(weight.shape)

    def measure() -> Mapping[str, float]:
        return {"step": seconds_per_step(step, task.seconds)}

    measure()
    serve(measure)


def _with_batch(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """The model for one batch size only: onnx-ad needs every shape in numbers."""
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = size
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _lifted(model: onnx.ModelProto) -> dict[str, Any]:
    """Weights made inputs of the graph, with their values."""
    weights: dict[str, Any] = {}
    for tensor in list(model.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and "running_" not in tensor.name:
            weights[tensor.name] = numpy_helper.to_array(tensor).copy()
            model.graph.initializer.remove(tensor)
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, 1, list(tensor.dims)))
    return weights


def _with_loss(model: onnx.ModelProto, nodes: list[tuple[str, list[str], str]], shape: Any) -> None:
    """The model with the summed loss as its only output."""
    model.graph.node.extend(helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes)
    model.graph.node.append(helper.make_node("ReduceSum", ["each"], ["loss"], keepdims=0))
    model.graph.input.append(helper.make_tensor_value_info("target", TensorProto.FLOAT, shape))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("loss", TensorProto.FLOAT, []))


if __name__ == "__main__":
    main()
