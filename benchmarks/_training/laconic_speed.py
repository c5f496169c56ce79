"""Processor time of a training step of a bundle, by the Trainer as it comes and by one call a step."""

from __future__ import annotations

import time
from collections.abc import Mapping

from worker import TRIAL_STEPS, Task, serve

from laconic.runtime import Bundle, Trainer


def main() -> None:
    """Serve measurements of `default`, what a Trainer does by itself, and `step`, one call for each step."""
    task = Task.given()
    x, y = task.data()
    bundle = Bundle.read((task.folder / f"{task.model}{task.variant}.bundle").read_bytes())
    trainers = {"default": Trainer(bundle), "step": Trainer(bundle, form="step")}

    def run(trainer: Trainer, steps: int) -> float:
        samples = min(len(x), steps * task.batch)
        began = time.process_time()
        result = trainer.train(
            bundle.initial,
            x[:samples],
            y[:samples],
            epochs=max(1, round(steps * task.batch / samples)),
            batch_size=task.batch,
            learning_rate=task.learning_rate,
            seed=0,
        )
        return (time.process_time() - began) / result.steps

    # The first run warms up, the second estimates.
    for _ in range(2):
        trials = {name: run(trainer, TRIAL_STEPS) for name, trainer in trainers.items()}
    steps = {name: max(TRIAL_STEPS, int(task.seconds / trial)) for name, trial in trials.items()}

    def measure() -> Mapping[str, float]:
        return {name: run(trainer, steps[name]) for name, trainer in trainers.items()}

    serve(measure)


if __name__ == "__main__":
    main()
