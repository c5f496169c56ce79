"""The one check that every gradient rule must pass: its gradients against central differences in float64.

The rules are applied twice: in float32 on onnxruntime, as devices run them, and in float64 on ONNX's
reference implementation (`laconic.training.exact`), where nothing but a wrong formula makes a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from laconic.training.assemble import IR_VERSION, OPSET, assemble, model
from laconic.training.backward import gradients, varying
from laconic.training.builder import BATCH, GraphBuilder, TensorType, value_info
from laconic.training.exact import evaluator
from laconic.training.forward import lay
from laconic.training.inferred import tensor_types
from laconic.training.rules import RULES, Rule

STEP = 1e-3
COORDINATES = 24
LIMITS = {TensorProto.FLOAT: 2e-5, TensorProto.DOUBLE: 1e-7}
"""The largest error of a gradient along a direction, as a share of the sum of its terms' sizes (or of 1)."""

Arrays = Mapping[str, NDArray[Any]]
Forward = Callable[[Arrays], NDArray[np.float64]]
Layout = Callable[[GraphBuilder, Sequence[NodeProto], Collection[str]], Sequence[NodeProto]]


def rule_gradients(
    nodes: Sequence[NodeProto],
    values: Arrays,
    dy: NDArray[Any],
    wanted: Sequence[str],
    batched: Collection[str] = (),
    rules: Mapping[str, Rule] = RULES,
    real: int = TensorProto.FLOAT,
    constant: Collection[str] = (),
    layout: Layout | None = None,
) -> dict[str, NDArray[Any]]:
    """Gradients of sum(y * dy) by the rules; y is the last node's first output.

    Run by onnxruntime in float32, or by ONNX's reference implementation in float64 (`real`). Forms are those
    of evaluation. `layout` may lay the nodes in another way first.
    """
    dtype = helper.tensor_dtype_to_np_dtype(real)
    values = {n: a.astype(dtype) if a.dtype == np.float32 else a for n, a in values.items()}
    forward = _forward(nodes, values, batched, constant)
    types = tensor_types(shape_inference.infer_shapes(forward, strict_mode=True, data_prop=True).graph)
    constants = {i.name: numpy_helper.to_array(i) for i in forward.graph.initializer}
    g = GraphBuilder((), types, constants, real=real)
    if layout is not None:
        nodes = layout(g, nodes, varying(g, nodes, wanted))
    saved = lay(g, nodes)
    y = forward.graph.output[0].name
    g.declare("dy", real, g.shape(y))
    found = gradients(g, nodes, {y: "dy"}, wanted, saved, rules)
    inputs = [i.name for i in forward.graph.input]
    outputs = {f"d/{n}": (found[n], TensorType(real, types[n].shape)) for n in wanted}
    encoded = model(assemble(g, "gradient", [*inputs, "dy"], outputs))
    feeds = {n: values[n] for n in inputs} | {"dy": dy.astype(dtype)}
    if real == TensorProto.FLOAT:
        results = ort.InferenceSession(encoded, providers=["CPUExecutionProvider"]).run(list(outputs), feeds)
    else:
        results = evaluator(encoded).run(list(outputs), feeds)
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
    double: bool = True,
    constant: Collection[str] = (),
    layout: Layout | None = None,
) -> None:
    """Hold the rules of `nodes` to central differences of their ONNX reference implementation.

    `values` gives every input; float32 arrays become graph inputs (with a batch axis of unknown size for
    those in `batched`), all others constants, and those in `constant` too. Each wanted gradient is compared
    along single coordinates and along one random direction. `forward` stands in for a reference
    implementation that has faults; `double` is False where the reference cannot run what a rule emits;
    `layout` is as in `rule_gradients`.
    """
    chain = [nodes] if isinstance(nodes, NodeProto) else list(nodes)
    rng = np.random.default_rng(seed)
    exact = forward or reference(chain, values, constant)
    fed = [n for n, a in values.items() if a.dtype == np.float32 and n not in constant]
    feeds = {n: values[n].astype(np.float64) for n in fed}
    dy = rng.standard_normal(np.shape(exact(feeds)))
    for real in LIMITS if double else [TensorProto.FLOAT]:
        found = rule_gradients(chain, values, dy, wanted, batched, rules, real, constant, layout)
        for name in wanted:
            assert found[name].shape == values[name].shape
            for direction in _directions(rng, feeds[name].shape):
                due = _derivative(partial(_moved, exact, feeds, name, direction), dy)
                terms = found[name].astype(np.float64) * direction
                error = abs(float(np.sum(terms)) - due) / max(1.0, float(np.sum(np.abs(terms))))
                assert error <= LIMITS[real], (name, real, due, error)


def _moved(
    forward: Forward, feeds: dict[str, NDArray[Any]], name: str, direction: NDArray[Any], t: float
) -> NDArray[np.float64]:
    return forward(feeds | {name: feeds[name] + t * direction})


def _derivative(along: Callable[[float], NDArray[np.float64]], dy: NDArray[np.float64]) -> float:
    """d/dt of sum(y(t) * dy) at 0, by the five-point formula, whose error is of the fourth order."""
    near, far = (along(h) - along(-h) for h in (STEP, 2 * STEP))
    return float(np.sum((8 * near - far) * dy)) / (12 * STEP)


def reference(nodes: Sequence[NodeProto], values: Arrays, constant: Collection[str] = ()) -> Forward:
    """What ONNX's reference implementation (mended) makes of `nodes`, in the precision of what it is fed."""
    precise = {
        n: a.astype(np.float64) if n in constant and a.dtype == np.float32 else a for n, a in values.items()
    }
    exact = evaluator(_forward(nodes, precise, (), constant))
    return lambda feeds: np.asarray(next(iter(exact.run(None, dict(feeds)))))


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> list[NDArray[np.float64]]:
    size = int(np.prod(shape))
    picked = rng.choice(size, min(size, COORDINATES), replace=False)
    single = [np.eye(1, size, k).reshape(shape) for k in picked]
    return [*single, rng.choice([-1.0, 1.0], shape)]


def _forward(
    nodes: Sequence[NodeProto], values: Arrays, batched: Collection[str], constant: Collection[str]
) -> ModelProto:
    def shape(name: str) -> tuple[int | str, ...]:
        known = values[name].shape
        return (BATCH, *known[1:]) if name in batched else known

    floats = [n for n, a in values.items() if a.dtype in (np.float32, np.float64) and n not in constant]
    real = TensorProto.DOUBLE if any(values[n].dtype == np.float64 for n in floats) else TensorProto.FLOAT
    graph = helper.make_graph(
        list(nodes),
        "forward",
        [value_info(n, real, shape(n)) for n in floats],
        [value_info(next(filter(None, nodes[-1].output)), real, None)],
        initializer=[numpy_helper.from_array(a, n) for n, a in values.items() if n not in floats],
    )
    # Opsets 20 and 24 are the first with Gelu and Swish; what they have in common with 18 means the same.
    since = max({"Gelu": 20, "Swish": 24}.get(n.op_type, OPSET) for n in nodes)
    opset = [helper.make_opsetid("", since)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
