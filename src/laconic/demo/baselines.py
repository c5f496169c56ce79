"""The talk's other two curves: each device alone, and all data in one place."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.demo.data import Part, Split
from laconic.demo.settings import Settings
from laconic.runtime import Bundle, Trainer
from laconic.schema import Vector


@dataclass(frozen=True)
class Curves:
    """Accuracy on held-out data after each round's worth of training, from round 0."""

    alone: list[float]
    """Mean over the devices."""
    pooled: list[float]


def train_curves(bundle: Bundle, split: Split, settings: Settings, seed: int) -> Curves:
    """Train without any communication: as many rounds and epochs, at the same learning rates."""
    trainer = Trainer(bundle)
    alone = [
        _curve(trainer, part, split.held_out, settings, seed=1000 * seed + i)
        for i, part in enumerate(split.devices)
    ]
    pooled = _curve(trainer, split.pooled(), split.held_out, settings, seed=1000 * seed + 999)
    return Curves([sum(at) / len(at) for at in zip(*alone, strict=True)], pooled)


def _curve(trainer: Trainer, part: Part, held_out: Part, settings: Settings, *, seed: int) -> list[float]:
    weights = trainer.bundle.initial
    curve = [_accuracy(trainer, weights, held_out)]
    for number in range(settings.rounds):
        weights = trainer.train(
            weights,
            part.x,
            part.y,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate * settings.learning_rate_decay**number,
            seed=seed + 100_000 * number,
        ).weights
        curve.append(_accuracy(trainer, weights, held_out))
    return curve


def _accuracy(trainer: Trainer, weights: Vector, held_out: Part) -> float:
    return trainer.evaluate(weights, held_out.x, held_out.y).values["accuracy"]
