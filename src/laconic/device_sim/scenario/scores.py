"""Scores models on held-out examples: the baselines' curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from laconic.device_sim.learning.workshop import Workshop
from laconic.device_sim.scenario.baselines import Model, Practice, practised
from laconic.device_sim.scenario.examples import Examples, Part
from laconic.device_sim.scenario.results import BaselineRow, LossRow
from laconic.device_sim.scenario.settings import BaselinesSection
from laconic.edge_sdk.work import seed_of
from laconic.runtime import Metrics, Trainer

BATCH: Final = 256


@dataclass(frozen=True)
class Baselines:
    """The curves, and the models at their end."""

    rows: list[BaselineRow] = field(default_factory=list)
    losses: list[LossRow] = field(default_factory=list)
    alone: dict[str, Model] = field(default_factory=dict)
    """By device: those that were drawn."""
    pooled: Model | None = None


def baselines(
    section: BaselinesSection,
    workshop: Workshop,
    names: Sequence[str],
    examples: Examples,
    practice: Practice,
    *,
    seed: int,
    threads: int,
    with_losses: bool,
    watch: Callable[[int], None] = lambda number: None,
) -> Baselines:
    """Train what the section asks for on the devices' examples; score it on those that are held out.

    `names`: of the devices. `seed` draws some of them; their own seeds are those of name and round. `watch`
    is told of each round that has been done.
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
    with ThreadPoolExecutor(threads) as pool:
        for number, models in enumerate(practised(workshop, trained, practice, seeded)):
            alone = models[: len(drawn)]
            if number % section.every == 0 or number == practice.rounds:
                found = list(pool.map(lambda m: score(workshop.trainer, m, examples.held_out), models))
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


def score(trainer: Trainer, model: Model, examples: Part) -> Metrics:
    """How good a model is, with its own local weights."""
    return trainer.evaluate(model.weights, examples.x, examples.y, batch_size=BATCH, local=model.local)


def pooled(parts: Sequence[Part]) -> Part:
    """All devices' examples in one place."""
    return Part(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))


def loss_rows(kind: str, number: int, device: str, losses: Iterable[float]) -> list[LossRow]:
    """A row for each step of a round."""
    return [LossRow(kind, number, device, step, float(loss)) for step, loss in enumerate(losses)]


def _drawn(devices: int, count: int, seed: int) -> list[int]:
    if not 0 < count < devices:
        return list(range(devices))
    return sorted(np.random.default_rng([seed, 2]).choice(devices, count, replace=False).tolist())


def _row(kind: str, number: int, found: Sequence[Metrics], models: Sequence[Model]) -> BaselineRow:
    accuracies = [m.accuracy for m in found if m.accuracy is not None]
    losses = [m.loss for m in found]
    return BaselineRow(
        kind=kind,
        round=number,
        devices=len(found),
        accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
        accuracy_least=min(accuracies, default=None),
        accuracy_most=max(accuracies, default=None),
        loss=sum(losses) / len(losses),
        loss_least=min(losses),
        loss_most=max(losses),
        failed=sum(m.failed for m in models),
    )
