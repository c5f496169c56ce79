"""What people do, told by their phones (UCI HAR): federated, with layers of their own, alone, pooled.

docs/experiments/activity.md has the table. Takes the folder `uci-har` of the shared data (LACONIC_DATA) and
some ten minutes of one core.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
from _result import Bar, at_least
from numpy.typing import NDArray

from laconic.device_sim import Result, Scenario
from laconic.device_sim.datasets import har
from laconic.device_sim.scenario.examples import Part, examples_of
from laconic.device_sim.scenario.own import set_apart
from laconic.device_sim.scenario.running import Models, play
from laconic.edge_sdk.learner import OnnxLearner
from laconic.runtime import Trainer
from laconic.schema import Vector

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = (ROOT / (os.environ.get("LACONIC_DATA") or "../shared/data") / "uci-har").resolve()
SCENARIO: Final = ROOT / "examples" / "scenarios" / "activity.toml"
SEEDS: Final = (0, 1, 2)
LOCAL: Final = {"first": ("conv1.*",), "shared": (), "last": ("head.*",)}
"""Which layers stay on a phone."""
PEOPLE: Final = 21
FEW: Final = 5
"""Windows of each activity that somebody new has labelled."""
EPOCHS, RATE, BATCH = 20, 0.02, 16
"""Of training a federated model further on one person's own windows."""

Accuracies = Sequence[float]


def measure(pool: Executor) -> dict[str, Any]:
    """Accuracies of every way for each seed, and what it costs a person a day."""
    jobs = [(seed, kind) for kind in LOCAL for seed in SEEDS]
    found = list(pool.map(_run, jobs))
    kinds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in LOCAL}
    for (_, kind), row in zip(jobs, found, strict=True):
        kinds[kind].append(row)
    return {"seeds": list(SEEDS), **kinds}


def bars(found: dict[str, Any]) -> list[Bar]:
    """A layer of one's own is worth more than training alone, and that no less than one model for all."""
    mean = {kind: fmean(row["own"]["mean"] for row in found[kind]) for kind in LOCAL}
    alone, pooled = (fmean(row[kind]["mean"] for row in found["shared"]) for kind in ("alone", "pooled"))
    new = fmean(row["new"]["federated"]["mean"] for row in found["shared"])
    return [
        at_least("activity, own first layer: accuracy", mean["first"], 0.97),
        at_least("activity, own first layer over alone", mean["first"] - alone, 0.0),
        at_least("activity, own first layer over one model for all", mean["first"] - mean["shared"], 0.03),
        at_least("activity, pooled: accuracy", pooled, 0.9),
        at_least("activity, new people, one federated model: accuracy", new, 0.8),
    ]


def _run(job: tuple[int, str]) -> dict[str, Any]:
    seed, kind = job
    baselines = {"alone": kind == "shared", "pooled": kind == "shared", "alone_devices": 0, "every": 1000}
    scenario = Scenario.read(SCENARIO).replaced(
        {
            "seed": seed,
            "model.local": list(LOCAL[kind]),
            "data.path": str(FOLDER),
            "data.download": False,
            "baselines": baselines,
        }
    )
    result, models = play(scenario)
    trainer = Trainer(models.bundle)
    examples = examples_of(scenario.settings.data, PEOPLE, seed, scenario.folder)
    out: dict[str, Any] = {
        "own": _summary([s.federated_accuracy or 0.0 for s in result.scores]),
        "own_without_overlap": _summary(_without_overlap(trainer, models, examples.own)),
        "rounds": result.totals.rounds,
        "hours": result.totals.hours,
        "parameters": result.totals.parameters,
        "committed": [d.committed for d in result.devices],
        "costs": {k: _costs(result, k) for k in ("wifi", "lte")},
    }
    if kind == "shared":
        tuned = [
            _accuracy(trainer, _tuned(trainer, models.federated, mine, seed), own)
            for mine, own in zip(examples.devices, examples.own, strict=True)
        ]
        out["tuned"] = _summary(tuned)
        out["alone"] = _summary([s.alone_accuracy or 0.0 for s in result.scores])
        out["pooled"] = _summary([s.pooled_accuracy or 0.0 for s in result.scores])
        out["new"] = _new_people(trainer, models, seed)
    return out


def _without_overlap(trainer: Trainer, models: Models, own: Sequence[Part]) -> list[float]:
    """Without the first held-out window of each activity, half of which may be in the last one learnt."""
    found = []
    for private, part in zip(models.private.values(), own, strict=True):
        local = OnnxLearner(trainer, (part.x, part.y)).local(private)
        first = np.unique(part.y, return_index=True)[1]
        rest = part.at(np.delete(np.arange(len(part.y)), first))
        accuracy = trainer.evaluate(models.federated, rest.x, rest.y, batch_size=256, local=local).accuracy
        found.append(accuracy or 0.0)
    return found


def _new_people(trainer: Trainer, models: Models, seed: int) -> dict[str, Any]:
    """Those whom nobody has learnt from: with the models as they are, and, on the last quarter of their
    windows, with a model of their own that has learnt from the first few of each activity."""
    assert models.pooled is not None
    ways = {"federated": models.federated, "pooled": models.pooled.weights}
    every: dict[str, list[float]] = {f"{n}, all windows": [] for n in ways}
    last: dict[str, list[float]] = {n: [] for n in (*ways, *(f"{n}, then tuned" for n in ways), "few alone")}
    for few, end, whole in _newcomers():
        for name, weights in ways.items():
            every[f"{name}, all windows"].append(_accuracy(trainer, weights, whole))
            last[name].append(_accuracy(trainer, weights, end))
            last[f"{name}, then tuned"].append(_accuracy(trainer, _tuned(trainer, weights, few, seed), end))
        alone = _tuned(trainer, trainer.bundle.initial, few, seed, epochs=4 * EPOCHS, rate=0.05)
        last["few alone"].append(_accuracy(trainer, alone, end))
    return {name: _summary(found) for name, found in (every | last).items()}


def _newcomers() -> list[tuple[Part, Part, Part]]:
    """Of each of the nine: the first few windows of each activity, the last quarter of them, and all."""
    learners = tuple(p for p in range(1, 31) if p not in har.TEST_PEOPLE)
    data = har.load(FOLDER, held_out=learners).train
    assert data.group is not None
    found = []
    for person in np.unique(data.group):
        where = np.flatnonzero(data.group == person)
        y = data.y[where]
        apart = set_apart(np.zeros(len(where), np.int64), y, None, 0.25)
        found.append((_first(data.gathered(where), y), data.gathered(where[apart]), data.gathered(where)))
    return found


def _first(part: Part, y: NDArray[np.generic]) -> Part:
    chosen = np.concatenate([np.flatnonzero(y == activity)[:FEW] for activity in np.unique(y)])
    return part.at(chosen)


def _tuned(
    trainer: Trainer, weights: Vector, part: Part, seed: int, *, epochs: int = EPOCHS, rate: float = RATE
) -> Vector:
    found = trainer.train(
        weights, part.x, part.y, epochs=epochs, batch_size=BATCH, learning_rate=rate, seed=seed
    )
    return found.weights


def _accuracy(trainer: Trainer, weights: Vector, part: Part) -> float:
    found = trainer.evaluate(weights, part.x, part.y, batch_size=256).accuracy
    assert found is not None
    return found


def _summary(found: Accuracies) -> dict[str, float]:
    return {"mean": fmean(found), "least": min(found)}


def _costs(result: Result, kind: str) -> dict[str, float]:
    """What a phone of a class spends in a day, of as many days as the run has begun."""
    days = -(-result.totals.hours // 24)
    rows = [d for d in result.devices if d.kind == kind]
    return {
        "bytes_up": fmean(d.bytes_up for d in rows) / days,
        "bytes_down": fmean(d.bytes_down for d in rows) / days,
        "compute_j": fmean(d.compute_j for d in rows) / days,
        "radio_j": fmean(d.promotion_j + d.active_j + d.tail_j for d in rows) / days,
        "rounds_j": fmean(d.useful_j + d.silent_j + d.wasted_j for d in rows) / days,
        "upkeep_j": fmean(d.upkeep_j for d in rows) / days,
        "battery_j": fmean(d.battery_j or 0.0 for d in rows),
        "trained": fmean(d.trained for d in rows) / days,
    }
