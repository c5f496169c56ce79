"""`prepare`: from an ONNX inference model to a training bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast, get_args

import numpy as np
from onnx import helper

from laconic.errors import ModelError
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
    control_of,
)
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
from laconic.training.optimizers import Optimizer
from laconic.training.outside import with_frozen_outside
from laconic.training.plan import Lora, Losses, Plan, plan
from laconic.training.source import Source


def prepare(
    model: bytes,
    *,
    loss: Losses = "cross_entropy",
    optimizer: str | Optimizer = "sgd",
    proximal: bool = False,
    scaffold: bool = False,
    clip_norm: float | None = None,
    output: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    trainable: Sequence[str] = (),
    frozen: Sequence[str] = (),
    local: Sequence[str] = (),
    lora: Lora | None = None,
    external_data: Mapping[str, bytes] | None = None,
) -> bytes:
    """Derive the training graphs of an ONNX model and pack them into a bundle (docs/spec/bundle.md).

    `model` is a whole ONNX file with samples on axis 0 of its inputs; the batch size it was exported with
    does not matter. `loss` is put on `output`, the model's first by default, or is a mapping from outputs to
    losses (or pairs of loss and weight), whose weighted sum is minimised; if an output ends in the activation
    that belongs to its loss, the loss is put before it. `proximal` adds the term of FedProx, `clip_norm`
    bounds the norm of all gradients together. `scaffold` adds a control variate for each weight that travels
    (SCAFFOLD); it needs optimizer "sgd" and goes with neither `proximal` nor `clip_norm`. `input_shapes`
    gives the shape of one sample, by input name, when the file leaves it open. `trainable`, `frozen` and
    `local` are shell patterns of parameters: `trainable` freezes all others, `frozen` those that match, and
    `local` ones are trained but never sent. With `lora` only adapters train, and what `trainable` or `local`
    name. `external_data` gives the bytes of files that the model keeps tensors in, by the location that it
    names; nothing is read from disk. The same arguments give the same bytes.

    Raises `UnsupportedOperator` when a weight reaches the loss through an operator without a gradient rule,
    `ModelError` for any other trouble with the model, `ConfigError` for the other arguments.
    """
    return bundle(
        plan(
            model,
            loss=loss,
            optimizer=optimizer,
            proximal=proximal,
            scaffold=scaffold,
            clip_norm=clip_norm,
            output=output,
            input_shapes=input_shapes,
            trainable=trainable,
            frozen=frozen,
            local=local,
            lora=lora,
            external_data=external_data,
        )
    )


def bundle(wanted: Plan) -> bytes:
    """The bundle of a plan. Raises `ModelError` (with `UnsupportedOperator`)."""
    source = wanted.source
    step = training_step(
        source,
        wanted.goals,
        wanted.optimizer,
        proximal=wanted.proximal,
        clip_norm=wanted.clip_norm,
        scaffold=wanted.scaffold,
    )
    parameters = tuple(Parameter(p.name, p.value.shape, p.role, p.kind) for p in source.parameters)
    controls = tuple(
        control_of(p) for p in parameters if wanted.scaffold and p.role == "trainable" and p.kind == "weight"
    )
    weights = np.concatenate([p.value.ravel() for p in source.parameters])
    if not np.isfinite(weights).all():
        raise ModelError("the model holds weights that are not finite", remedy="export a sound model")
    evaluation, metrics = evaluation_model(source, wanted.goals)
    graphs = {
        "step": step_model(step),
        "epoch": epoch_model(step),
        "evaluation": evaluation,
        "inference": inference_model(source),
    }
    parts = {"weights": weights.astype("<f4").tobytes() + bytes(4 * sum(p.spec.size for p in controls))}
    parts.update({name: with_frozen_outside(graph, source.parameters) for name, graph in graphs.items()})
    manifest = Manifest(
        source_sha256=wanted.digest,
        inputs=tuple(DataInput(n, _dtype(source, n), _sample(source.types[n].shape)) for n in source.inputs),
        outputs=tuple(
            ModelOutput(n, _dtype(source, n), _sample(source.types[n].shape)) for n in source.outputs
        ),
        objectives=tuple(_objective(goal, names) for goal, names in zip(wanted.goals, metrics, strict=True)),
        optimizer=_optimizer_info(wanted, step),
        proximal=wanted.proximal,
        parameters=(*parameters, *controls),
        parts=(),
    )
    return pack(manifest, parts)


def _objective(goal: Goal, metrics: Sequence[str]) -> Objective:
    kind = goal.target_type
    target = None
    if kind is not None:
        dtype = cast(DType, str(helper.tensor_dtype_to_np_dtype(kind.dtype)))
        target = Target(goal.target, dtype, _sample(kind.shape), kind.classes)
    return Objective(
        goal.loss.name, goal.output, goal.weight, dict(goal.loss.settings), target, tuple(metrics)
    )


def _optimizer_info(wanted: Plan, step: Step) -> OptimizerInfo:
    optimizer = wanted.optimizer
    settings = dict(optimizer.settings)
    if wanted.clip_norm is not None:
        settings["clip_norm"] = float(wanted.clip_norm)
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
