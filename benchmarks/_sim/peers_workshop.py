"""Trains rounds of a scenario's devices without a world and prints one JSON line: when each round was done.

Usage: peers_workshop.py FILE THREADS ROUNDS COHORT, in the project's environment.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from laconic.device_sim import Scenario
from laconic.device_sim.learning import Job, Workshop
from laconic.device_sim.scenario.examples import examples_of
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.settings import counts
from laconic.runtime import TrainResult


def main(file: Path, threads: int, rounds: int, cohort: int) -> None:
    """All rounds; times are of the machine's monotonic clock."""
    scenario = Scenario.read(file)
    s, training = scenario.settings, scenario.settings.coordinator.training
    examples = examples_of(s.data, sum(counts(s)), s.seed, scenario.folder)
    bundle = bundle_of(s.model, examples, seed=s.seed, proximal=False, folder=scenario.folder)
    weights, rng, at_s = bundle.initial, np.random.default_rng(s.seed), [time.monotonic()]
    with Workshop(bundle, threads=threads) as workshop:
        for number in range(rounds):
            picked = rng.choice(len(examples.devices), cohort, replace=False)
            jobs = [
                Job(
                    weights,
                    examples.devices[i].x,
                    examples.devices[i].y,
                    training.epochs,
                    training.batch_size,
                    training.learning_rate,
                    number * 1000 + int(i),
                )
                for i in picked
            ]
            done = workshop.train(jobs)
            changes = [one.weights - weights for one in done if isinstance(one, TrainResult)]
            if len(changes) != cohort:
                raise SystemExit(f"{cohort - len(changes)} of {cohort} did not train")
            weights = weights + np.mean(changes, axis=0)
            at_s.append(time.monotonic())
    print(json.dumps({"at_s": at_s}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(number) for number in sys.argv[2:5]))
