"""Rounds of a hundred devices in fleets of ten and a hundred thousand: production engines, real learning.

Seconds are the processor's. Everybody connects and says hello; who is not asked then does nothing but ping.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _result import Bar, at_most

from _sim.memory import peak_bytes
from laconic.device_sim import Scenario, run

SIZES = (1_000, 10_000, 100_000)
COHORT, ROUNDS, FEATURES = 100, 3, 8


def measure() -> dict[str, Any]:
    """Each size in a process of its own: memory is counted from its beginning."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        found = {str(size): pool.apply(fleet, (size,)) for size in SIZES}
    few, many = SIZES[0], SIZES[-1]
    more_gb = found[str(many)]["peak_gb"] - found[str(few)]["peak_gb"]
    return {"sizes": found, "cohort": COHORT, "rounds": ROUNDS, "bytes_each": 1e9 * more_gb / (many - few)}


def bars(found: dict[str, Any]) -> list[Bar]:
    """2 GB for a hundred thousand devices that have said hello."""
    largest = found["sizes"][str(SIZES[-1])]
    return [at_most("rounds, 100,000 devices of which 100 work: GB", largest["peak_gb"], 2.0)]


def fleet(devices: int) -> dict[str, float]:
    """A scenario of so many devices, with an example each of a task that a linear model can do."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2 * devices, FEATURES), np.float32)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "examples.npz"
        np.savez(file, x=x, y=(x[:, 0] > 0).astype(np.int64))
        asked = {"min_devices": devices, "min_reports": COHORT, "target_reports": COHORT}
        scenario = Scenario.of(
            {
                "name": "many",
                "end": {"rounds": ROUNDS, "hours": 100},
                "model": {"built_in": "softmax"},
                "data": {"source": "npz", "path": str(file)},
                "coordinator": {
                    "rounds": {"targeted": True, "over_selection": 1.0, "deadline_s": 300.0, **asked},
                    "training": {"epochs": 1, "batch_size": 10, "learning_rate": 0.1},
                },
                "devices": [{"name": "d", "count": devices, "speed": {"sample_s": 0.001}}],
            }
        )
        began = time.process_time()
        totals = run(scenario).totals
    assert totals.committed == ROUNDS * COHORT
    return {
        "processor_s": time.process_time() - began,
        "peak_gb": peak_bytes() / 1e9,
        "events": totals.events,
    }
