"""Scores models on held-out examples: the baselines' curves, and each device's models on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from typing import Any, Final

import numpy as np

from laconic.device_sim.learning.workshop import Workshop
from laconic.device_sim.scenario.baselines import Model, Practice, practised
from laconic.device_sim.scenario.examples import Examples, Part
from laconic.device_sim.scenario.results import BaselineRow, LossRow, ScoreRow, finite
from laconic.device_sim.scenario.settings import BaselinesSection
from laconic.edge_sdk.learner import OnnxLearner
from laconic.edge_sdk.work import seed_of
from laconic.runtime import Bundle, Metrics, Trainer
from laconic.schema import Vector

BATCH: Final = 256


@dataclass(frozen=True)
class Baselines:
    """The curves, and the models at their end."""

    rows: list[BaselineRow] = field(default_factory=list)
    losses: list[LossRow] = field(default_factory=list)
    alone: dict[str, Model] = field(default_factory=dict)
    """By device: those that were drawn."""
    pooled: Model | None = None


@dataclass(frozen=True)
class Models:
    """What a run has trained."""

    bundle: Bundle
    federated: Vector
    """Weights of the newest version."""
    private: dict[str, bytes]
    """By device: what its learner keeps for itself, if anything (`OnnxLearner.local` reads the weights in
    it)."""
    alone: dict[str, Model]
    """By device, those of `[baselines]`."""
    pooled: Model | None


def baselines(
    section: BaselinesSection,
    workshop: Workshop,
    names: Sequence[str],
    examples: Examples,
    practice: Practice,
    *,
    seen: Callable[[Part, int], Part],
    seed: int,
    threads: int,
    with_losses: bool,
    watch: Callable[[int], None] = lambda number: None,
) -> Baselines:
    """Train what the section asks for on the devices' examples; score it on those that are held out.

    `names`: of the devices. `seen`: what examples look like in a round. `seed` draws some devices; their own
    seeds are those of name and round. `watch` is told of each round that has been done.
    """
    places = _drawn(len(names), section.alone_devices, seed) if section.alone else []
    trained = [examples.devices[i] for i in places]
    if section.pooled:
        trained.append(pooled(examples.devices))
    if not trained:
        return Baselines()
    drawn = [names[i] for i in places]

    def seeded(place: int, number: int) -> int:
        return seed_of(drawn[place] if place < len(drawn) else "", f"baseline/{seed}/{number}") % 2**63

    rows: list[BaselineRow] = []
    losses: list[LossRow] = []
    models: Sequence[Model] = []

    def parts(number: int) -> list[Part]:
        return [seen(part, number) for part in trained]

    with ThreadPoolExecutor(threads) as pool:
        for number, models in enumerate(practised(workshop, len(trained), parts, practice, seeded)):
            alone = models[: len(drawn)]
            if number % section.every == 0 or number == practice.rounds:
                held_out = seen(examples.held_out, number)
                scorer = partial(score, workshop.trainer, examples=held_out)
                found = list(pool.map(scorer, models))
                if drawn:
                    rows.append(_row("alone", number, found[: len(drawn)], alone))
                if section.pooled:
                    rows.append(_row("pooled", number, found[-1:], models[-1:]))
            if with_losses:
                for name, model in zip(drawn, alone, strict=True):
                    losses += loss_rows("alone", number, name, model.losses)
            watch(number)
    return Baselines(
        rows,
        losses,
        dict(zip(drawn, models[: len(drawn)], strict=True)),
        models[-1] if section.pooled else None,
    )


def scored(
    trainer: Trainer,
    models: Models,
    names: Sequence[str],
    kinds: Mapping[str, tuple[str, int]],
    own: Sequence[Part],
    *,
    threads: int,
) -> list[ScoreRow]:
    """A row for each device that has examples of its own held out: the end's models on them.

    `kinds`: class of each device; `own`: in the order of `names`, or nothing.
    """
    initial = models.bundle.initial_local
    shared = Model(models.federated, initial)
    reader = OnnxLearner(trainer, (own[0].x, own[0].y)) if own else None

    def row(place: int) -> ScoreRow | None:
        name, part = names[place], own[place]
        if reader is None or not len(part.y):
            return None
        local = reader.local(models.private.get(name, b""))
        return ScoreRow(
            device=name,
            kind=kinds[name][0],
            samples=len(part.y),
            **_pair("federated", score(trainer, Model(models.federated, local), part)),
            **_pair("shared", score(trainer, shared, part) if initial.size else None),
            **_pair("alone", score(trainer, models.alone[name], part) if name in models.alone else None),
            **_pair("pooled", score(trainer, models.pooled, part) if models.pooled else None),
        )

    with ThreadPoolExecutor(threads) as pool:
        return [r for r in pool.map(row, range(len(own))) if r is not None]


def _pair(name: str, found: Metrics | None) -> dict[str, Any]:
    return {
        f"{name}_accuracy": found and found.accuracy,
        f"{name}_loss": None if found is None else finite(found.loss),
    }


def score(trainer: Trainer, model: Model, examples: Part) -> Metrics:
    """How good a model is, with its own local weights."""
    return trainer.evaluate(model.weights, examples.x, examples.y, batch_size=BATCH, local=model.local)


def pooled(parts: Sequence[Part]) -> Part:
    """All devices' examples in one place."""
    return Part(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))


def loss_rows(kind: str, number: int, device: str, losses: Iterable[float]) -> list[LossRow]:
    """A row for each step of a round."""
    return [LossRow(kind, number, device, step, finite(float(loss))) for step, loss in enumerate(losses)]


def _drawn(devices: int, count: int, seed: int) -> list[int]:
    if not 0 < count < devices:
        return list(range(devices))
    return sorted(np.random.default_rng([seed, 2]).choice(devices, count, replace=False).tolist())


def _row(kind: str, number: int, found: Sequence[Metrics], models: Sequence[Model]) -> BaselineRow:
    accuracies = [m.accuracy for m in found if m.accuracy is not None]
    losses = [m.loss for m in found if isfinite(m.loss)]
    return BaselineRow(
        kind=kind,
        round=number,
        devices=len(found),
        accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
        accuracy_least=min(accuracies, default=None),
        accuracy_most=max(accuracies, default=None),
        loss=sum(losses) / len(losses) if losses else None,
        loss_least=min(losses, default=None),
        loss_most=max(losses, default=None),
        failed=sum(m.failed for m in models) + len(found) - len(losses),
    )
