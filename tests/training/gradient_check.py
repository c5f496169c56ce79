"""The one check that every gradient rule must pass: its gradients against central differences in float64."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from laconic.training.assemble import IR_VERSION, OPSET, assemble, model, value_info
from laconic.training.backward import gradients
from laconic.training.batch_axis import tensor_types
from laconic.training.builder import BATCH, GraphBuilder, TensorType
from laconic.training.rules import RULES, Rule

STEP = 1e-4
COORDINATES = 24

Arrays = Mapping[str, NDArray[Any]]
Forward = Callable[[Arrays], NDArray[np.float64]]


def rule_gradients(
    nodes: Sequence[NodeProto],
    values: Arrays,
    dy: NDArray[np.float32],
    wanted: Sequence[str],
    batched: Collection[str] = (),
    rules: Mapping[str, Rule] = RULES,
) -> dict[str, NDArray[np.float32]]:
    """Gradients of sum(y * dy) by the rules, run by onnxruntime in float32; y is the last node's output."""
    forward = _forward(nodes, values, batched)
    types = tensor_types(shape_inference.infer_shapes(forward, strict_mode=True, data_prop=True).graph)
    constants = {i.name: numpy_helper.to_array(i) for i in forward.graph.initializer}
    g = GraphBuilder(nodes, types, constants)
    y = nodes[-1].output[0]
    shape = g.shape(y)
    g.declare("dy", 1, shape)
    found = gradients(g, nodes, {y: "dy"}, wanted, rules)
    inputs = [i.name for i in forward.graph.input]
    outputs = {f"d/{n}": (found[n], TensorType(1, types[n].shape)) for n in wanted}
    encoded = model(assemble(g, "gradient", [*inputs, "dy"], outputs))
    session = ort.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    feeds = {n: values[n] for n in inputs} | {"dy": dy}
    results = session.run(list(outputs), feeds)
    return dict(zip(wanted, results, strict=True))


def check(
    nodes: Sequence[NodeProto] | NodeProto,
    values: Arrays,
    wanted: Sequence[str],
    *,
    batched: Collection[str] = (),
    forward: Forward | None = None,
    rules: Mapping[str, Rule] = RULES,
    seed: int = 0,
) -> None:
    """Hold the rules of `nodes` to central differences of their ONNX reference implementation.

    `values` gives every input; float32 arrays become graph inputs (with a batch axis of unknown size for
    those in `batched`), all others constants. Each wanted gradient is compared along single coordinates and
    along one random direction. `forward` stands in for a reference implementation that has faults.
    """
    chain = [nodes] if isinstance(nodes, NodeProto) else list(nodes)
    rng = np.random.default_rng(seed)
    exact = forward or reference(chain, values)
    feeds = {n: a.astype(np.float64) for n, a in values.items() if a.dtype == np.float32}
    y = exact(feeds)
    dy = rng.standard_normal(np.shape(y)).astype(np.float32)
    found = rule_gradients(chain, values, dy, wanted, batched, rules)
    for name in wanted:
        assert found[name].shape == values[name].shape
        for direction in _directions(rng, feeds[name].shape):
            ends = [exact(feeds | {name: feeds[name] + sign * STEP * direction}) for sign in (1, -1)]
            due = float(np.sum((ends[0] - ends[1]) * dy)) / (2 * STEP)
            scale = max(1.0, float(np.sum(np.abs(found[name] * direction))))
            assert abs(float(np.sum(found[name] * direction)) - due) <= 2e-5 * scale, (name, due)


def reference(nodes: Sequence[NodeProto], values: Arrays) -> Forward:
    """What ONNX's reference implementation makes of `nodes`, in the precision of what it is fed."""
    evaluator = ReferenceEvaluator(_forward(nodes, values, ()))
    return lambda feeds: np.asarray(evaluator.run(None, dict(feeds))[0])


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> list[NDArray[np.float64]]:
    size = int(np.prod(shape))
    picked = rng.choice(size, min(size, COORDINATES), replace=False)
    single = [np.eye(1, size, k).reshape(shape) for k in picked]
    return [*single, rng.choice([-1.0, 1.0], shape)]


def _forward(nodes: Sequence[NodeProto], values: Arrays, batched: Collection[str]) -> ModelProto:
    def shape(name: str) -> tuple[int | str, ...]:
        known = values[name].shape
        return (BATCH, *known[1:]) if name in batched else known

    floats = [n for n, a in values.items() if a.dtype == np.float32]
    graph = helper.make_graph(
        list(nodes),
        "forward",
        [value_info(n, 1, shape(n)) for n in floats],
        [value_info(nodes[-1].output[0], 1, None)],
        initializer=[numpy_helper.from_array(a, n) for n, a in values.items() if n not in floats],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
