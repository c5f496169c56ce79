"""Puts the four graphs of a bundle together: step, epoch, evaluation and inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from laconic.training.assemble import SCALAR, assemble, assemble_body, model
from laconic.training.backward import gradients, varying
from laconic.training.builder import GraphBuilder, TensorType, value_info
from laconic.training.channel_major import channel_major
from laconic.training.forward import lay
from laconic.training.losses import Loss, TargetType, Terms
from laconic.training.optimizers import Optimizer, added, clipped
from laconic.training.rules import Training
from laconic.training.source import Source, SourceParameter
from laconic.training.widening import widened, widened_nodes

STEPS = "steps"
"""The name of the leading axis of the epoch graph's data."""

COUNTER = TensorType(TensorProto.INT64, ())
"""Of the inputs `seed` and `step`."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A loss on one output of the source, and its share in the sum that is minimised.

    `target` names the graph input that the loss compares with; empty for a loss without one.
    """

    loss: Loss
    output: str
    weight: float
    prediction: str
    target: str
    target_type: TargetType | None


@dataclass(frozen=True, slots=True)
class Step:
    """A training step before it is assembled; `results` maps each output's name to its tensor and type.

    `counts` and `seeded` say whether the step has the state `step` and the setting `seed`.
    """

    graph: GraphBuilder
    state: tuple[str, ...]
    data: tuple[str, ...]
    settings: tuple[str, ...]
    results: Mapping[str, tuple[str, TensorType]]
    counts: bool
    seeded: bool


def training_step(
    source: Source,
    goals: Sequence[Goal],
    optimizer: Optimizer,
    *,
    proximal: bool,
    clip_norm: float | None,
    scaffold: bool = False,
) -> Step:
    """Forward pass, loss, backward pass and optimizer.

    With `proximal`, every travelling weight w has an input `ref/<w>`, and mu / 2 |w - ref|^2 is added to the
    loss's gradient (FedProx, Li et al., MLSys 2020, section 3; the reported loss leaves it out). `clip_norm`
    bounds the norm of all gradients together. With `scaffold`, every travelling weight has an input
    `correction/<w>`, which is added to its gradient (Karimireddy et al., ICML 2020, equation 3).

    Raises `UnsupportedOperator` or `ModelError`.
    """
    g = GraphBuilder((), source.types, source.constants)
    counters = _Counters(g)
    trained = [p for p in source.parameters if p.role != "frozen"]
    weights = [p for p in trained if p.kind == "weight"]
    statistics = [p.name for p in trained if p.kind == "statistic"]
    training = Training(statistics, {}, counters.seed)
    learned = [p.name for p in weights]
    nodes = channel_major(g, source.nodes, varying(g, source.nodes, learned))
    saved = lay(g, nodes, training, varying(g, nodes, learned))

    lr = g.declare("lr", TensorProto.FLOAT, ())
    early = optimizer.linear and clip_norm is None
    factor = g.op("Neg", lr) if optimizer.linear else None
    loss, seeds = _seeds(g, source, goals, factor if early else None)
    found = gradients(g, nodes, seeds, learned, saved)
    settings = ["lr", *(p.name for p in source.parameters if p.role == "frozen")]
    if proximal:
        settings += _pull(g, found, weights, factor if early else None)
    if scaffold:
        settings += _correct(g, found, weights, factor if early else None)
    if clip_norm is not None:
        found = clipped(g, found, clip_norm, factor)

    rates = optimizer.rates(g, lr, counters.number() if optimizer.counts else "")
    state: dict[str, tuple[str, TensorType]] = {}
    slots: dict[str, tuple[str, TensorType]] = {}
    for parameter in trained:
        name, kind = parameter.name, TensorType(TensorProto.FLOAT, parameter.value.shape)
        if parameter.kind == "statistic":
            state[name] = (training.updates.get(name, name), kind)
            continue
        own = {
            s: g.declare(f"opt/{s}/{name}", TensorProto.FLOAT, parameter.value.shape) for s in optimizer.slots
        }
        weight, moved = name, own
        if name in found:
            weight, changed = optimizer.update(g, name, found[name], own, rates)
            moved = {**own, **changed}
        state[name] = (weight, kind)
        slots.update({own[s]: (moved[s], kind) for s in optimizer.slots})
    state.update(slots)
    if counters.counted:
        state["step"] = (counters.following(), COUNTER)
    if counters.seeded:
        settings.append("seed")
    return Step(
        graph=g,
        state=tuple(state),
        data=(*source.inputs, *(goal.target for goal in goals if goal.target)),
        settings=tuple(settings),
        results={**{f"{old}:new": new for old, new in state.items()}, "loss": (loss, SCALAR)},
        counts=counters.counted,
        seeded=counters.seeded,
    )


def gradient_model(
    source: Source, goals: Sequence[Goal], trained: Sequence[str], real: int, *, with_gradients: bool
) -> bytes:
    """The loss of a training step and, if wanted, its gradients as `grad/<w>`, in float32 or float64
    (`real`).

    The inputs are those of the step without its optimizer; for checking (`laconic.training.check`).
    """
    g = GraphBuilder((), *widened(source, real), real=real)
    counters = _Counters(g)
    statistics = [p.name for p in source.parameters if p.kind == "statistic" and p.role != "frozen"]
    nodes = widened_nodes(source.nodes, real)
    nodes = channel_major(g, nodes, varying(g, nodes, trained))
    saved = lay(g, nodes, Training(statistics, {}, counters.seed))
    loss, seeds = _seeds(g, source, goals, None)
    results = {"loss": (loss, TensorType(real, ()))}
    if with_gradients:
        found = gradients(g, nodes, seeds, trained, saved)
        results.update({f"grad/{n}": (t, TensorType(real, g.types[n].shape)) for n, t in found.items()})
    data = (*source.inputs, *(goal.target for goal in goals if goal.target))
    counted = [n for n, used in (("step", counters.counted), ("seed", counters.seeded)) if used]
    inputs = (*(p.name for p in source.parameters), *data, *counted)
    return model(assemble(g, "gradient", inputs, results))


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


def evaluation_model(source: Source, goals: Sequence[Goal]) -> tuple[bytes, list[list[str]]]:
    """For each metric a sum and its weight, as an ONNX file; and the metrics' names, goal by goal."""
    g = source.builder()
    results: dict[str, tuple[str, TensorType]] = {}
    names: list[list[str]] = []
    for goal in goals:
        measures = goal.loss.evaluation(g, _terms(g, source, goal))
        named = {m if len(goals) == 1 else f"{m}/{goal.output}": part for m, part in measures.items()}
        names.append(list(named))
        for metric, measure in named.items():
            results[f"sum/{metric}"] = (measure.sum, SCALAR)
            results[f"weight/{metric}"] = (measure.weight, SCALAR)
    data = (*source.inputs, *(goal.target for goal in goals if goal.target))
    return model(assemble(g, "evaluation", [*(p.name for p in source.parameters), *data], results)), names


def inference_model(source: Source) -> bytes:
    """The source model with its weights as inputs, as an ONNX file."""
    g = source.builder()
    inputs = [*(p.name for p in source.parameters), *source.inputs]
    results = {name: (name, g.types[name]) for name in source.outputs}
    return model(assemble(g, "inference", inputs, results))


def _seeds(
    g: GraphBuilder, source: Source, goals: Sequence[Goal], factor: str | None
) -> tuple[str, dict[str, str]]:
    """The weighted sum of the goals' losses, and its gradient at each prediction, times `factor`."""
    losses: list[str] = []
    arrived: dict[str, list[str]] = {}
    for goal in goals:
        scale = factor
        if goal.weight != 1.0:
            share = g.scalar(goal.weight)
            scale = share if factor is None else g.op("Mul", factor, share)
        loss, seed = goal.loss.training(g, _terms(g, source, goal), scale)
        losses.append(loss if goal.weight == 1.0 else g.op("Mul", loss, g.scalar(goal.weight)))
        arrived.setdefault(goal.prediction, []).append(seed)
    total = losses[0] if len(losses) == 1 else g.op("Sum", *losses)
    return total, {n: s[0] if len(s) == 1 else g.op("Sum", *s) for n, s in arrived.items()}


def _terms(g: GraphBuilder, source: Source, goal: Goal) -> Terms:
    if goal.target_type is not None:
        real = goal.target_type.dtype == TensorProto.FLOAT
        g.declare(goal.target, g.real if real else goal.target_type.dtype, goal.target_type.shape)
    return Terms(goal.prediction, goal.target, source.inputs[0])


def _pull(
    g: GraphBuilder, found: dict[str, str], weights: Sequence[SourceParameter], factor: str | None
) -> list[str]:
    """Add the proximal term's gradient to those in `found`; the inputs that it takes."""
    mu = g.declare("prox_mu", TensorProto.FLOAT, ())
    settings = [mu]
    pull = mu if factor is None else g.op("Mul", mu, factor)
    for parameter in weights:
        if parameter.role == "trainable":
            name = parameter.name
            reference = g.declare(f"ref/{name}", TensorProto.FLOAT, parameter.value.shape)
            settings.append(reference)
            term = g.op("Mul", g.op("Sub", name, reference), pull)
            found[name] = added(g, found[name], onto=term) if name in found else term
    return settings


def _correct(
    g: GraphBuilder, found: dict[str, str], weights: Sequence[SourceParameter], factor: str | None
) -> list[str]:
    """Add the corrections to the gradients in `found`; the inputs that it takes."""
    settings = []
    for parameter in weights:
        if parameter.role == "trainable":
            name = parameter.name
            term = g.declare(f"correction/{name}", TensorProto.FLOAT, parameter.value.shape)
            settings.append(term)
            if factor is not None:
                term = g.op("Mul", term, factor)
            found[name] = added(g, found[name], onto=term) if name in found else term
    return settings


class _Counters:
    """The inputs `step` and `seed`, declared when first asked for."""

    def __init__(self, g: GraphBuilder) -> None:
        self._g = g
        self._calls = 0
        self._following = ""

    @property
    def counted(self) -> bool:
        """Whether the step counts itself."""
        return bool(self._following)

    @property
    def seeded(self) -> bool:
        """Whether the step takes a seed."""
        return self._calls > 0

    def following(self) -> str:
        """The number of steps including this one, int64."""
        if not self._following:
            step = self._g.declare("step", TensorProto.INT64, ())
            self._following = self._g.op("Add", step, self._g.constant(np.array(1, np.int64)))
        return self._following

    def number(self) -> str:
        """The same as a real number."""
        return self._g.to_real(self.following())

    def seed(self) -> str:
        """An int64 scalar for one use: seed, step and use are each spread over all bits by an odd factor, and
        added modulo 2^64 (the factors are those of SplitMix64; Steele et al., OOPSLA 2014)."""
        g = self._g
        if not self._calls:
            g.declare("seed", TensorProto.INT64, ())
        self._calls += 1
        parts = [
            g.op("Mul", "seed", _wide(0x9E3779B97F4A7C15, g)),
            g.op("Mul", self.following(), _wide(0xBF58476D1CE4E5B9, g)),
        ]
        return g.op("Add", g.op("Add", *parts), _wide(self._calls * 0x94D049BB133111EB, g))


def _wide(number: int, g: GraphBuilder) -> str:
    return g.constant(np.array(number % 2**64, np.uint64).astype(np.int64))
