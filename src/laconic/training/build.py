"""`prepare`: from an ONNX inference model to a training bundle."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import cast, get_args

import numpy as np
from onnx import helper

from laconic.errors import ConfigError, ModelError
from laconic.runtime.bundle import pack
from laconic.runtime.manifest import (
    DataInput,
    DType,
    Manifest,
    ModelOutput,
    Objective,
    OptimizerInfo,
    Parameter,
    Target,
)
from laconic.training.backward import require_rules
from laconic.training.builder import Shape
from laconic.training.graphs import (
    Goal,
    Step,
    epoch_model,
    evaluation_model,
    inference_model,
    step_model,
    training_step,
)
from laconic.training.losses import Loss, loss_named
from laconic.training.optimizers import Optimizer, optimizer_named
from laconic.training.source import Source, check_interface, load

Losses = str | Loss | Mapping[str, "str | Loss | tuple[str | Loss, float]"]
"""One loss for the model's first output, or losses by output, with a weight where it is not 1."""


def prepare(
    model: bytes,
    *,
    loss: Losses = "cross_entropy",
    optimizer: str | Optimizer = "sgd",
    proximal: bool = False,
    clip_norm: float | None = None,
    output: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    trainable: Sequence[str] = (),
    frozen: Sequence[str] = (),
    local: Sequence[str] = (),
) -> bytes:
    """Derive the training graphs of an ONNX model and pack them into a bundle (docs/spec/bundle.md).

    `model` is a whole ONNX file with samples on axis 0 of its inputs; the batch size it was exported with
    does not matter. `loss` is put on `output`, the model's first by default, or is a mapping from outputs to
    losses (or pairs of loss and weight), whose weighted sum is minimised; if an output ends in the activation
    that belongs to its loss, the loss is put before it. `proximal` adds the term of FedProx, `clip_norm`
    bounds the norm of all gradients together. `input_shapes` gives the shape of one sample, by input name,
    when the file leaves it open. `trainable`, `frozen` and `local` are shell patterns of parameters:
    `trainable` freezes all others, `frozen` those that match, and `local` ones are trained but never sent.
    The same arguments give the same bytes.

    Raises `UnsupportedOperator` when a weight reaches the loss through an operator without a gradient rule,
    `ModelError` for any other trouble with the model, `ConfigError` for the other arguments.
    """
    chosen = optimizer_named(optimizer)
    if clip_norm is not None and not (clip_norm > 0 and math.isfinite(clip_norm)):
        raise ConfigError("clip_norm", value=clip_norm, limit="finite, above 0")
    losses = _losses(loss, output)
    source = load(
        model,
        trained=[name for name in losses if name],
        input_shapes=input_shapes,
        trainable=trainable,
        frozen=frozen,
        local=local,
    )
    goals = _goals(source, losses)
    trained = [p.name for p in source.parameters if p.role != "frozen"]
    for goal in goals:
        require_rules(source.builder(), source.nodes, trained, goal.prediction)
    check_interface(source)
    step = training_step(source, goals, chosen, proximal=proximal, clip_norm=clip_norm)
    weights = np.concatenate([p.value.ravel() for p in source.parameters])
    if not np.isfinite(weights).all():
        raise ModelError("the model holds weights that are not finite", remedy="export a sound model")
    evaluation, metrics = evaluation_model(source, goals)
    parts = {
        "weights": weights.astype("<f4").tobytes(),
        "step": step_model(step),
        "epoch": epoch_model(step),
        "evaluation": evaluation,
        "inference": inference_model(source),
    }
    manifest = Manifest(
        source_sha256=hashlib.sha256(model).digest(),
        inputs=tuple(DataInput(n, _dtype(source, n), _sample(source.types[n].shape)) for n in source.inputs),
        outputs=tuple(
            ModelOutput(n, _dtype(source, n), _sample(source.types[n].shape)) for n in source.outputs
        ),
        objectives=tuple(_objective(goal, names) for goal, names in zip(goals, metrics, strict=True)),
        optimizer=_optimizer_info(chosen, step, clip_norm),
        proximal=proximal,
        parameters=tuple(Parameter(p.name, p.value.shape, p.role, p.kind) for p in source.parameters),
        parts=(),
    )
    return pack(manifest, parts)


def _losses(loss: Losses, output: str | None) -> dict[str, tuple[Loss, float]]:
    """Losses and their weights by output; an empty name is the model's first."""
    if not isinstance(loss, Mapping):
        return {output or "": (loss_named(loss), 1.0)}
    if output is not None:
        raise ConfigError("output", value=output, remedy="name outputs in `loss` only")
    if not loss:
        raise ConfigError("loss", value=dict(loss), limit="at least one")
    losses: dict[str, tuple[Loss, float]] = {}
    for name, entry in loss.items():
        kind, weight = entry if isinstance(entry, tuple) else (entry, 1.0)
        if not (weight > 0 and math.isfinite(weight)):
            raise ConfigError(f"weight of the loss on {name!r}", value=weight, limit="finite, above 0")
        losses[name] = (loss_named(kind), float(weight))
    return losses


def _goals(source: Source, losses: Mapping[str, tuple[Loss, float]]) -> list[Goal]:
    goals: list[Goal] = []
    graph = source.builder()
    for name, (loss, weight) in losses.items():
        output = name or source.outputs[0]
        prediction = source.prediction(output, loss.absorbs)
        kind = loss.target(prediction, graph.shape(prediction))
        target = "" if kind is None else "target" if len(losses) == 1 else f"target/{output}"
        goals.append(Goal(loss, output, weight, prediction, target, kind))
    return goals


def _objective(goal: Goal, metrics: Sequence[str]) -> Objective:
    kind = goal.target_type
    target = None
    if kind is not None:
        dtype = cast(DType, str(helper.tensor_dtype_to_np_dtype(kind.dtype)))
        target = Target(goal.target, dtype, _sample(kind.shape), kind.classes)
    return Objective(
        goal.loss.name, goal.output, goal.weight, dict(goal.loss.settings), target, tuple(metrics)
    )


def _optimizer_info(optimizer: Optimizer, step: Step, clip_norm: float | None) -> OptimizerInfo:
    settings = dict(optimizer.settings)
    if clip_norm is not None:
        settings["clip_norm"] = float(clip_norm)
    return OptimizerInfo(
        optimizer.name, optimizer.layout, settings, optimizer.slots, step.counts, step.seeded
    )


def _sample(shape: Shape | None) -> tuple[int | None, ...]:
    """The shape of one sample; None for an axis of any length."""
    return tuple(d if isinstance(d, int) else None for d in (shape or ())[1:])


def _dtype(source: Source, name: str) -> DType:
    code = source.types[name].dtype
    known = str(helper.tensor_dtype_to_np_dtype(code))
    if known not in get_args(DType):
        raise ModelError(f"element type of {name!r}", value=known, limit=get_args(DType))
    return cast(DType, known)
