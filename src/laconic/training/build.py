"""`prepare`: from an ONNX inference model to a training bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import cast, get_args

import numpy as np
from onnx import helper

from laconic.errors import ModelError
from laconic.runtime.bundle import pack
from laconic.runtime.manifest import (
    DataInput,
    DType,
    LossInfo,
    Manifest,
    ModelOutput,
    OptimizerInfo,
    Parameter,
)
from laconic.training.backward import require_rules
from laconic.training.graphs import epoch_model, evaluation_model, inference_model, step_model, training_step
from laconic.training.losses import Loss, loss_named, width
from laconic.training.optimizers import Optimizer, optimizer_named
from laconic.training.source import Source, check_interface, load


def prepare(
    model: bytes,
    *,
    loss: str | Loss = "cross_entropy",
    optimizer: str | Optimizer = "sgd",
    proximal: bool = False,
    output: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    frozen: Sequence[str] = (),
    local: Sequence[str] = (),
) -> bytes:
    """Derive the training graphs of an ONNX model and pack them into a bundle (docs/spec/bundle.md).

    `model` is a whole ONNX file in float32 with samples on axis 0 of its inputs; the batch size it was
    exported with does not matter. `proximal` adds the term of FedProx. `output` names the output to train,
    the first by default; if it ends in the activation that belongs to the loss, the loss is put before it.
    `input_shapes` gives the shape of one sample, by input name, when the file leaves it open.
    `frozen` and `local` are shell patterns of parameters that stay as they are, or that are trained but
    never sent. The same arguments give the same bytes.

    Raises `UnsupportedOperator` when a weight reaches the loss through an operator without a gradient rule,
    `ModelError` for any other trouble with the model, `ConfigError` for the other arguments.
    """
    chosen_loss, chosen_optimizer = loss_named(loss), optimizer_named(optimizer)
    source = load(model, output=output, input_shapes=input_shapes, frozen=frozen, local=local)
    trained = [p.name for p in source.parameters if p.role != "frozen"]
    require_rules(source.builder(), source.nodes, trained, source.prediction(chosen_loss.absorbs))
    check_interface(source)
    step = training_step(source, chosen_loss, chosen_optimizer, proximal=proximal)
    weights = np.concatenate([p.value.ravel() for p in source.parameters])
    if not np.isfinite(weights).all():
        raise ModelError("the model holds weights that are not finite", remedy="export a sound model")
    parts = {
        "weights": weights.astype("<f4").tobytes(),
        "step": step_model(step),
        "epoch": epoch_model(step),
        "evaluation": evaluation_model(source, chosen_loss),
        "inference": inference_model(source),
    }
    return pack(_manifest(source, model, chosen_loss, chosen_optimizer, proximal), parts)


def _manifest(source: Source, model: bytes, loss: Loss, optimizer: Optimizer, proximal: bool) -> Manifest:
    g = source.builder()
    return Manifest(
        source_sha256=hashlib.sha256(model).digest(),
        inputs=tuple(DataInput(n, _dtype(source, n), g.static(n, 1)) for n in source.inputs),
        output=ModelOutput(source.output, g.static(source.output, 1)),
        loss=LossInfo(loss.name, width(g, source.prediction(loss.absorbs))),
        optimizer=OptimizerInfo(optimizer.name, dict(optimizer.settings), optimizer.slots),
        proximal=proximal,
        parameters=tuple(Parameter(p.name, p.value.shape, p.role) for p in source.parameters),
        parts=(),
    )


def _dtype(source: Source, name: str) -> DType:
    code = source.types[name].dtype
    known = str(helper.tensor_dtype_to_np_dtype(code))
    if known not in get_args(DType):
        raise ModelError(f"element type of input {name!r}", value=known, limit=get_args(DType))
    return cast(DType, known)
