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
from laconic.device_sim.learning import Workshop
from laconic.device_sim.scenario.baselines import Practice, practised
from laconic.device_sim.scenario.examples import Examples, Part, examples_of
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.own import set_apart
from laconic.device_sim.scenario.running import Models, play
from laconic.device_sim.scenario.scores import pooled
from laconic.edge_sdk.learner import OnnxLearner
from laconic.runtime import Trainer
from laconic.schema import Vector

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = (ROOT / (os.environ.get("LACONIC_DATA") or "../shared/data") / "uci-har").resolve()
SCENARIO: Final = ROOT / "examples" / "scenarios" / "activity.toml"
SEEDS: Final = (0, 1, 2)
LOCAL: Final = {"first": ("conv1.*",), "shared": (), "last": ("head.*",)}
"""Which layers stay on a phone."""
KINDS: Final = (*LOCAL, "alone", "pooled")
PEOPLE: Final = 21
FEW: Final = 5
"""Windows of each activity that somebody new has labelled."""
EPOCHS, RATE = 20, 0.02
"""Of training a model further on one person's own windows."""
FRESH: Final = (80, 0.05)
"""The same of a model that has seen nothing yet."""
ROUNDS: Final = 21
"""Alone and pooled take as many rounds' worth: in so many of its forty a phone takes part, on average."""


def measure(pool: Executor) -> dict[str, Any]:
    """Accuracies of every way for each seed, and what it costs a person a day."""
    jobs = [(seed, kind) for kind in KINDS for seed in SEEDS]
    found: dict[str, Any] = {"seeds": list(SEEDS)} | {kind: [] for kind in KINDS}
    for (_, kind), row in zip(jobs, pool.map(_measured, jobs), strict=True):
        found[kind].append(row)
    return found


def bars(found: dict[str, Any]) -> list[Bar]:
    """One model for all, tuned, is no worse than alone; a first layer of one's own better than that."""
    mean = {kind: fmean(row["own"]["mean"] for row in found[kind]) for kind in KINDS}
    new = {
        kind: fmean(row["new"]["as it is"]["mean"] for row in found[kind]) for kind in ("shared", "pooled")
    }
    tuned = fmean(row["tuned"]["mean"] for row in found["shared"])
    return [
        at_least("activity, own first layer: accuracy", mean["first"], 0.95),
        at_least("activity, federated, then tuned, over alone", tuned - mean["alone"], 0.0),
        at_least("activity, own first layer over one model for all", mean["first"] - mean["shared"], 0.03),
        at_least("activity, new people, federated: accuracy", new["shared"], 0.75),
        at_least("activity, new people, pooled: accuracy", new["pooled"], 0.85),
    ]


def _measured(job: tuple[int, str]) -> dict[str, Any]:
    seed, kind = job
    scenario = Scenario.read(SCENARIO).replaced(
        {
            "seed": seed,
            "model.local": list(LOCAL.get(kind, ())),
            "data.path": str(FOLDER),
            "data.download": False,
            "baselines": {},
        }
    )
    examples = examples_of(scenario.settings.data, PEOPLE, seed, scenario.folder)
    return _federated(scenario, examples) if kind in LOCAL else _lone(scenario, examples, kind)


def _federated(scenario: Scenario, examples: Examples) -> dict[str, Any]:
    result, models = play(scenario)
    trainer = Trainer(models.bundle)
    out: dict[str, Any] = {
        "own": _summary([s.federated_accuracy or 0.0 for s in result.scores]),
        "own_without_overlap": _summary(_without_overlap(trainer, result, models, examples)),
        "rounds": result.totals.rounds,
        "hours": result.totals.hours,
        "parameters": result.totals.parameters,
        "committed": [d.committed for d in result.devices],
        "costs": {k: _costs(result, k) for k in ("wifi", "lte")},
    }
    if not models.bundle.local_schema.size:
        tuned = [
            _accuracy(trainer, _tuned(trainer, models.federated, mine), own)
            for mine, own in zip(examples.devices, examples.own, strict=True)
        ]
        out |= {"tuned": _summary(tuned), "new": _new_people(trainer, models.federated)}
    return out


def _lone(scenario: Scenario, examples: Examples, kind: str) -> dict[str, Any]:
    """Without communication: each person by themselves, or all windows in one place."""
    s = scenario.settings
    t = s.coordinator.training
    bundle = bundle_of(s.model, examples, seed=s.seed, proximal=False, folder=scenario.folder)
    parts = examples.devices if kind == "alone" else [pooled(examples.devices)]
    practice = Practice(ROUNDS, t.epochs, t.batch_size, t.learning_rate, t.learning_rate_decay)
    with Workshop(bundle) as workshop:
        *_, models = practised(
            workshop, len(parts), lambda number: parts, practice, lambda place, number: 1000 * s.seed + number
        )
    trainer = Trainer(bundle)
    own = [
        _accuracy(trainer, models[place if kind == "alone" else 0].weights, part)
        for place, part in enumerate(examples.own)
    ]
    first = bundle.initial if kind == "alone" else models[0].weights
    how = FRESH if kind == "alone" else (EPOCHS, RATE)
    return {"own": _summary(own), "new": _new_people(trainer, first, *how)}


def _without_overlap(trainer: Trainer, result: Result, models: Models, examples: Examples) -> list[float]:
    """Without the first held-out window of each activity, half of which may be in the last one learnt."""
    found = []
    for device, part in zip(result.devices, examples.own, strict=True):
        # Whoever has never trained keeps nothing.
        local = OnnxLearner(trainer, (part.x, part.y)).local(models.private.get(device.name, b""))
        first = np.unique(part.y, return_index=True)[1]
        rest = part.at(np.delete(np.arange(len(part.y)), first))
        accuracy = trainer.evaluate(models.federated, rest.x, rest.y, batch_size=256, local=local).accuracy
        found.append(accuracy or 0.0)
    return found


def _new_people(
    trainer: Trainer, weights: Vector, epochs: int = EPOCHS, rate: float = RATE
) -> dict[str, Any]:
    """Those whom nobody has learnt from: with a model as it is, on all their windows and the last quarter of
    them, and there once it has learnt from the first few of each activity."""
    found: dict[str, list[float]] = {"as it is": [], "at the end": [], "tuned, at the end": []}
    for few, end, whole in _newcomers():
        found["as it is"].append(_accuracy(trainer, weights, whole))
        found["at the end"].append(_accuracy(trainer, weights, end))
        found["tuned, at the end"].append(
            _accuracy(trainer, _tuned(trainer, weights, few, epochs, rate), end)
        )
    return {name: _summary(accuracies) for name, accuracies in found.items()}


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


def _tuned(trainer: Trainer, weights: Vector, part: Part, epochs: int = EPOCHS, rate: float = RATE) -> Vector:
    return trainer.train(
        weights, part.x, part.y, epochs=epochs, batch_size=16, learning_rate=rate, seed=1
    ).weights


def _accuracy(trainer: Trainer, weights: Vector, part: Part) -> float:
    found = trainer.evaluate(weights, part.x, part.y, batch_size=256).accuracy
    assert found is not None
    return found


def _summary(found: Sequence[float]) -> dict[str, float]:
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
