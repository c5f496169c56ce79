"""Whether virtual devices train in stacks or one by one: by a rule of size, or by measuring."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, TypeAlias

from laconic.device_sim.learning.job import Job
from laconic.device_sim.learning.stack import Stacks
from laconic.errors import ModelError
from laconic.runtime import Bundle, Trainer

Way: TypeAlias = Literal["stacks", "threads"]
"""stacks: many devices in each call to onnxruntime; threads: one device in each."""

STACKED_PARAMETERS = 20_000
"""Up to here stacks are faster (docs/simulator.md)."""


def stacks_of(bundle: Bundle) -> Stacks | None:
    """The session for stacks; None for training that cannot be stacked, or without onnx to turn its graph."""
    try:
        return Stacks(bundle)
    except ModelError:
        return None
    except ModuleNotFoundError as e:
        if e.name != "onnx":
            raise
        return None


def way_by_size(bundle: Bundle) -> Way:
    """The rule: the same bundle goes the same way on every machine."""
    small = bundle.schema.size + bundle.local_schema.size <= STACKED_PARAMETERS
    return "stacks" if small and stacks_of(bundle) is not None else "threads"


def way_by_measuring(bundle: Bundle, jobs: Sequence[Job]) -> Way:
    """Whichever does `jobs` in less processor time on this machine, now.

    Another time it may be the other one, whose results differ by float32 rounding: a run that is to be
    repeated keeps what this found among its settings. Raises what a job that cannot be done raises.
    """
    stacks, trainer = stacks_of(bundle), Trainer(bundle)
    if stacks is None:
        return "threads"
    spent = {"stacks": float("inf"), "threads": float("inf")}
    # The first time sessions are opened, and memory is asked for.
    for _ in range(3):
        began = time.process_time()
        ready = [stacks.ready(job) for job in jobs]
        for places in stacks.divided(ready):
            stacks.train([ready[i] for i in places])
        turned = time.process_time()
        for job in jobs:
            trainer.train(**job.arguments)
        spent["stacks"] = min(spent["stacks"], turned - began)
        spent["threads"] = min(spent["threads"], time.process_time() - turned)
    return "stacks" if spent["stacks"] < spent["threads"] else "threads"
