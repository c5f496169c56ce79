"""A fresh process that trains with a bundle: time to the first finished step, and memory."""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

from worker import Task, memory_mb, tell  # noqa: E402 (the clock starts before anything is imported)

from laconic.runtime import Bundle, Trainer  # noqa: E402


def main() -> None:
    """One line of JSON; the variant `long` trains 10,000 steps, else about 200."""
    task = Task.given()
    x, y = task.data()
    bundle = Bundle.read((task.folder / f"{task.model}.bundle").read_bytes())
    trainer = Trainer(bundle)
    weights = bundle.initial

    def train(samples: int, epochs: int) -> int:
        nonlocal weights
        result = trainer.train(
            weights,
            x[:samples],
            y[:samples],
            epochs=epochs,
            batch_size=task.batch,
            learning_rate=task.learning_rate,
            seed=0,
        )
        weights = result.weights
        return result.steps

    train(task.batch, 1)
    first_step_s = time.perf_counter() - BEGAN
    many = 10_000 if task.variant == "long" else 200
    done = 0
    resident = []
    while done < many:
        done += train(len(x), 2)
        resident.append((done, memory_mb("VmRSS")))
    # What is flat is what comes after the start: buffers and sessions exist after a tenth of the steps.
    settled = next(mb for steps, mb in resident if steps >= many / 10)
    tell(
        {
            "first_step_s": first_step_s,
            "peak_mb": memory_mb("VmHWM"),
            "steps": done,
            "growth": max(mb for steps, mb in resident if steps >= many / 10) / settled - 1,
        }
    )


if __name__ == "__main__":
    main()
