"""MNIST divided in four ways: the accuracy beside that of FedAvg in numpy, and what small updates cost."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import Executor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _result import Bar, at_most

from laconic.device_sim import Result, Scenario, run

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "examples" / "scenarios"
MNIST = ROOT / (os.environ.get("LACONIC_DATA") or "../shared/data") / "mnist"
DIVISIONS = ("pooled", "uniform", "90", "100")
MODELS = ("softmax", "mlp")
SEEDS = (0,)
LAST = 5
"""Accuracies are means of as many last rounds."""

GATED = ("uniform", "90", "100")


def measure(pool: Executor) -> dict[str, Any]:
    """For each division and model the accuracy here and by the reference, of all 60,000 images."""
    plain = list(pool.map(_plain, *zip(*product(DIVISIONS, MODELS), strict=True)))
    return {"seeds": len(SEEDS), "plain": plain, "small": list(pool.map(_small, GATED))}


def bars(found: dict[str, Any]) -> list[Bar]:
    """Within a point of the reference, in each division."""
    return [
        at_most(
            f"mnist, {row['division']}, {row['model']}: points from FedAvg in numpy",
            100 * abs(row["accuracy"] - row["reference"]),
            1.0,
        )
        for row in found["plain"]
    ]


def _plain(division: str, model: str) -> dict[str, Any]:
    """A division as its file says, and what the reference makes of the same examples."""
    sys.path.append(str(ROOT / "tests" / "device_sim" / "experiments"))
    from comparing_fedavg import reference

    rows, theirs = [], []
    for seed in SEEDS:
        scenario = _mnist(f"mnist-{division}", seed).replaced({"model.built_in": model})
        rows.append(_row(scenario))
        # Another order of samples: a fleet's is its own.
        theirs.append(float(np.mean(reference(scenario, seed=seed + 100)[-LAST:])))
    found = {"division": division, "model": model, **_mean(rows), "reference": float(np.mean(theirs))}
    print(found, file=sys.stderr)
    return found


def _small(division: str) -> dict[str, Any]:
    """The same division with the compression and gate of mnist-small.toml."""
    small = Scenario.read(SCENARIOS / "mnist-small.toml").settings.coordinator
    changes = {
        "model.built_in": "mlp",
        "coordinator.compression": {"up": small.compression.up, "down": small.compression.down},
        "coordinator.gate": {
            "mode": small.gate.mode,
            "threshold": small.gate.threshold,
            "loss_factor": small.gate.loss_factor,
        },
    }
    rows = [_row(_mnist(f"mnist-{division}", seed).replaced(changes)) for seed in SEEDS]
    return {"division": division, "model": "mlp", **_mean(rows)}


def _mnist(name: str, seed: int) -> Scenario:
    return Scenario.read(SCENARIOS / f"{name}.toml").replaced({"seed": seed, "data.path": str(MNIST)})


def _row(scenario: Scenario) -> dict[str, float]:
    began = time.process_time()
    result = run(scenario)
    return _figures(result) | {"processor_s": time.process_time() - began}


def _figures(result: Result) -> dict[str, float]:
    totals = result.totals
    last = [row.accuracy for row in result.rounds if row.accuracy is not None][-LAST:]
    return {
        "accuracy": float(np.mean(last)),
        "bytes_up": totals.bytes_up,
        "bytes_down": totals.bytes_down,
        "silent": totals.skipped.get("gate", 0),
    }


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
