"""Puts the four graphs of a bundle together: step, epoch, evaluation and inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import TensorProto, ValueInfoProto, helper

from laconic.training.assemble import SCALAR, assemble, assemble_body, model
from laconic.training.backward import gradients
from laconic.training.builder import BATCH, GraphBuilder, TensorType, value_info
from laconic.training.losses import Loss, Terms, width
from laconic.training.optimizers import Optimizer, added
from laconic.training.source import Source

STEPS = "steps"
"""The name of the leading axis of the epoch graph's data."""


@dataclass(frozen=True, slots=True)
class Step:
    """A training step before it is assembled; `results` maps each output's name to its tensor and type."""

    graph: GraphBuilder
    state: tuple[str, ...]
    data: tuple[str, ...]
    settings: tuple[str, ...]
    results: Mapping[str, tuple[str, TensorType]]


def training_step(source: Source, loss: Loss, optimizer: Optimizer, *, proximal: bool) -> Step:
    """Forward pass, loss, backward pass and optimizer.

    With `proximal`, every travelling weight w has an input `ref/<w>`, and mu / 2 |w - ref|^2 is added to the
    loss's gradient (FedProx, Li et al., MLSys 2020, section 3; the reported loss leaves it out). Raises
    `UnsupportedOperator` or `ModelError`.
    """
    g = source.builder()
    forward = tuple(g.nodes)
    lr = g.declare("lr", TensorProto.FLOAT, ())
    factor = g.op("Neg", lr) if optimizer.linear else None
    mean, seed = loss.training(g, _terms(g, source, loss), factor)
    trained = [p for p in source.parameters if p.role != "frozen"]
    prediction = source.prediction(loss.absorbs)
    found = gradients(g, forward, {prediction: seed}, [p.name for p in trained])
    settings = ["lr", *(p.name for p in source.parameters if p.role == "frozen")]
    pull = None
    if proximal:
        settings.append(g.declare("prox_mu", TensorProto.FLOAT, ()))
        pull = "prox_mu" if factor is None else g.op("Mul", "prox_mu", factor)
    state: list[str] = []
    results: dict[str, tuple[str, TensorType]] = {}
    for parameter in trained:
        name, shape = parameter.name, parameter.value.shape
        slots = {s: g.declare(f"opt/{s}/{name}", TensorProto.FLOAT, shape) for s in optimizer.slots}
        gradient = found.get(name)
        if pull is not None and parameter.role == "trainable":
            reference = g.declare(f"ref/{name}", TensorProto.FLOAT, shape)
            settings.append(reference)
            term = g.op("Mul", g.op("Sub", name, reference), pull)
            gradient = term if gradient is None else added(g, gradient, onto=term)
        weight, moved = name, dict(slots)
        if gradient is not None:
            weight, changed = optimizer.update(g, name, gradient, slots, lr)
            moved.update(changed)
        kind = TensorType(TensorProto.FLOAT, shape)
        for old, new in [(name, weight), *((slots[s], moved[s]) for s in optimizer.slots)]:
            state.append(old)
            results[f"{old}:new"] = (new, kind)
    results["loss"] = (mean, SCALAR)
    data = (*source.inputs, "labels", "mask")
    return Step(g, tuple(state), data, tuple(settings), results)


def step_model(step: Step) -> bytes:
    """One training step as an ONNX file."""
    inputs = (*step.state, *step.data, *step.settings)
    return model(assemble(step.graph, "step", inputs, step.results))


def epoch_model(step: Step) -> bytes:
    """Any number of training steps as one ONNX file: the same names as the step, with a leading axis `steps`
    on data inputs and on the loss."""
    types = step.graph.types
    inputs = (*step.state, *step.data, *step.settings)
    body = assemble_body(
        step.graph,
        "body",
        (*step.state, *step.data),
        step.results,
        captured=step.settings,
        avoid=[*inputs, *step.results],
    )
    scan = helper.make_node(
        "Scan", [*step.state, *step.data], list(step.results), body=body, num_scan_inputs=len(step.data)
    )

    def declared(name: str, kind: TensorType, many: bool) -> ValueInfoProto:
        shape = kind.shape or ()
        return value_info(name, kind.dtype, (STEPS, *shape) if many else shape)

    graph = helper.make_graph(
        [scan],
        "epoch",
        [declared(n, types[n], n in step.data) for n in inputs],
        [declared(n, kind, n == "loss") for n, (_, kind) in step.results.items()],
    )
    return model(graph)


def evaluation_model(source: Source, loss: Loss) -> bytes:
    """Summed loss, right answers and sample count under the mask, as an ONNX file."""
    g = source.builder()
    total, right = loss.evaluation(g, _terms(g, source, loss))
    results = {
        "loss_sum": (total, SCALAR),
        "correct": (right, SCALAR),
        "count": (g.op("ReduceSum", "mask", keepdims=0), SCALAR),
    }
    inputs = [*(p.name for p in source.parameters), *source.inputs, "labels", "mask"]
    return model(assemble(g, "evaluation", inputs, results))


def inference_model(source: Source) -> bytes:
    """The source model with its weights as inputs, as an ONNX file."""
    g = source.builder()
    inputs = [*(p.name for p in source.parameters), *source.inputs]
    results = {source.output: (source.output, g.types[source.output])}
    return model(assemble(g, "inference", inputs, results))


def _terms(g: GraphBuilder, source: Source, loss: Loss) -> Terms:
    prediction = source.prediction(loss.absorbs)
    labels = g.declare("labels", TensorProto.INT64, (BATCH,))
    mask = g.declare("mask", TensorProto.FLOAT, (BATCH,))
    return Terms(prediction, labels, mask, width(g, prediction))
