"""What is to be prepared: a source model with its losses and optimizer, before any graph is made."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from laconic.errors import ConfigError
from laconic.training.adapters import with_adapters
from laconic.training.backward import require_rules
from laconic.training.graphs import Goal
from laconic.training.losses import Loss, loss_named
from laconic.training.optimizers import Optimizer, optimizer_named
from laconic.training.source import Source, check_interface, load

Losses: TypeAlias = str | Loss | Mapping[str, "str | Loss | tuple[str | Loss, float]"]
"""One loss for the model's first output, or losses by output, with a weight where it is not 1."""


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters for the weights that match one of the shell `patterns` (Hu et al., ICLR 2022).

    They add `alpha` / `rank` times a product of two factors; `alpha` is the rank by default. The first factor
    is drawn from `seed`.
    """

    patterns: tuple[str, ...]
    rank: int = 4
    alpha: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A model that can be trained, and how; `digest` is the SHA-256 of its file."""

    source: Source
    goals: tuple[Goal, ...]
    optimizer: Optimizer
    proximal: bool
    clip_norm: float | None
    digest: bytes
    scaffold: bool = False

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the weights that gradients move."""
        return tuple(p.name for p in self.source.parameters if p.role != "frozen" and p.kind == "weight")


def plan(
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
) -> Plan:
    """Read a model and decide what trains; the arguments and errors are those of `prepare`."""
    chosen = optimizer_named(optimizer)
    if clip_norm is not None and not (clip_norm > 0 and math.isfinite(clip_norm)):
        raise ConfigError("clip_norm", value=clip_norm, limit="finite, above 0")
    if scaffold:
        _check_scaffold(chosen, proximal=proximal, clip_norm=clip_norm)
    losses = _losses(loss, output)
    source = load(
        model,
        trained=[name for name in losses if name],
        input_shapes=input_shapes,
        trainable=trainable,
        frozen=frozen,
        local=local,
        external_data=external_data,
    )
    if lora is not None:
        source = with_adapters(
            source, lora.patterns, rank=lora.rank, alpha=lora.alpha, seed=lora.seed, trainable=trainable
        )
    goals = _goals(source, losses)
    made = Plan(source, goals, chosen, proximal, clip_norm, hashlib.sha256(model).digest(), scaffold)
    for goal in goals:
        require_rules(source.builder(), source.nodes, made.trained, goal.prediction)
    check_interface(source)
    return made


def _check_scaffold(optimizer: Optimizer, *, proximal: bool, clip_norm: float | None) -> None:
    """A device's control variate is the mean gradient of its steps, read off the way that the weights went:
    that is only so where a step is -lr times the gradient (Karimireddy et al., ICML 2020, option II).

    Raises `ConfigError`.
    """
    for thing, value, fine in (
        ("optimizer with scaffold", optimizer.name, optimizer.name == "sgd"),
        ("clip_norm with scaffold", clip_norm, clip_norm is None),
        ("proximal with scaffold", proximal, not proximal),
    ):
        if not fine:
            raise ConfigError(
                thing,
                value=value,
                limit="optimizer sgd without clip_norm and proximal",
                remedy="its control variates are read off the steps, which must be those of plain SGD",
            )


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


def _goals(source: Source, losses: Mapping[str, tuple[Loss, float]]) -> tuple[Goal, ...]:
    goals: list[Goal] = []
    graph = source.builder()
    for name, (loss, weight) in losses.items():
        output = name or source.trained[0]
        if any(goal.output == output for goal in goals):
            raise ConfigError("two losses on output", value=output, limit="one", remedy="name other outputs")
        prediction = source.prediction(output, loss.absorbs)
        kind = loss.target(prediction, graph.shape(prediction))
        target = "" if kind is None else "target" if len(losses) == 1 else f"target/{output}"
        goals.append(Goal(loss, output, weight, prediction, target, kind))
    return tuple(goals)
