"""The talk's other two curves: each device alone, and all data in one place."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.demo.data import Split
from laconic.demo.settings import Settings
from laconic.device_sim.learning.workshop import Workshop
from laconic.device_sim.scenario.baselines import Practice, practised
from laconic.runtime import Bundle
from laconic.schema import Vector


@dataclass(frozen=True)
class Curves:
    """Accuracy on held-out data after each round's worth of training, from round 0."""

    alone: list[float]
    """Mean over the devices."""
    pooled: list[float]


def train_curves(bundle: Bundle, split: Split, settings: Settings, seed: int) -> Curves:
    """Train without any communication: as many rounds and epochs, at the same learning rates."""
    devices = len(split.devices)
    practice = Practice(
        settings.rounds,
        settings.epochs,
        settings.batch_size,
        settings.learning_rate,
        settings.learning_rate_decay,
    )

    def seeded(place: int, number: int) -> int:
        return 1000 * seed + (place if place < devices else 999) + 100_000 * (number - 1)

    curves = Curves([], [])
    parts = [*split.devices, split.pooled()]
    with Workshop(bundle) as workshop:

        def accuracy(weights: Vector) -> float:
            held_out = split.held_out
            return workshop.trainer.evaluate(weights, held_out.x, held_out.y).values["accuracy"]

        for models in practised(workshop, len(parts), lambda number: parts, practice, seeded):
            *alone, pooled = [accuracy(m.weights) for m in models]
            curves.alone.append(sum(alone) / devices)
            curves.pooled.append(pooled)
    return curves
