"""What the workers of the training benchmark share: their task, when they measure, and how they tell.

A worker is a process of its own. It prepares, says `ready`, and then measures once for every line that it is
given: so several can be measured in turns, and whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TRIAL_STEPS = 8


@dataclass(frozen=True)
class Task:
    """One model at one batch size; `seconds` is about how long one measurement may take."""

    folder: Path
    model: str
    learning_rate: float
    loss: str
    batch: int = 8
    seconds: float = 0.3
    variant: str = ""

    @classmethod
    def given(cls) -> Task:
        """The task on the command line, as JSON."""
        fields = json.loads(sys.argv[1])
        return cls(**{**fields, "folder": Path(fields["folder"])})

    def data(self) -> tuple[Any, Any]:
        """Inputs and targets."""
        return np.load(self.folder / f"{self.model}.x.npy"), np.load(self.folder / f"{self.model}.y.npy")

    def batches(self, seed: int = 0) -> list[Any]:
        """The rows of each batch, in the order in which a `Trainer` takes them in its first epoch."""
        x, _ = self.data()
        order = np.random.default_rng(seed).permutation(len(x))
        return [order[i : i + self.batch] for i in range(0, len(x), self.batch)]


Step = Callable[[int], None]
"""Trains on batch number i."""


def seconds_per_step(step: Step, seconds: float) -> float:
    """The mean processor time of a step, over about `seconds`.

    Every library works in one thread. On a shared machine wall-clock time counts what others do besides.
    """
    began = time.process_time()
    for i in range(TRIAL_STEPS):
        step(i)
    steps = max(TRIAL_STEPS, int(seconds * TRIAL_STEPS / (time.process_time() - began)))
    began = time.process_time()
    for i in range(steps):
        step(i)
    return (time.process_time() - began) / steps


def serve(measure: Callable[[], Mapping[str, float]]) -> None:
    """Measure whenever a line arrives on standard input, until it ends."""
    tell({"ready": True})
    for _ in sys.stdin:
        tell(measure())


def tell(result: Mapping[str, Any]) -> None:
    """One line of JSON on standard output."""
    print(json.dumps(result), flush=True)


def memory_mb(field: str) -> float:
    """A field of /proc/self/status in MB: VmHWM is the most that was ever resident, VmRSS what is now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/self/status has no {field}")
