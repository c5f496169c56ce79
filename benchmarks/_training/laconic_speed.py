"""Time of a training step of a bundle, by the Trainer as it comes and by one call a step."""

from __future__ import annotations

import time
from collections.abc import Mapping

from worker import Task, serve

from laconic.runtime import Bundle, Trainer


def main() -> None:
    """Serve measurements of `default`, what a Trainer does by itself, and `step`, one call for each step."""
    task = Task.given()
    x, y = task.data()
    bundle = Bundle.read((task.folder / f"{task.model}{task.variant}.bundle").read_bytes())
    trainers = {"default": Trainer(bundle), "step": Trainer(bundle, form="step")}

    def run(trainer: Trainer, epochs: int) -> float:
        began = time.perf_counter()
        result = trainer.train(
            bundle.initial,
            x,
            y,
            epochs=epochs,
            batch_size=task.batch,
            learning_rate=task.learning_rate,
            seed=0,
        )
        return (time.perf_counter() - began) / result.steps

    steps = len(task.batches())
    for trainer in trainers.values():
        run(trainer, 1)
    epochs = {n: max(1, round(task.seconds / (run(t, 1) * steps))) for n, t in trainers.items()}

    def measure() -> Mapping[str, float]:
        return {name: run(trainer, epochs[name]) for name, trainer in trainers.items()}

    serve(measure)


if __name__ == "__main__":
    main()
