"""Malicious devices: what each rule of aggregation makes of each attack, uniform and skewed."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass
from itertools import product as combinations
from typing import Any

import numpy as np
from _codec.baselines import product
from _codec.data import Indices, Labels, Part, deal, deal_dirichlet
from _codec.federation import Contribution, Federation, Sent, State, decaying, run
from _codec.tasks import load
from _result import Bar, at_least

from _coordinator.malice import TAMPERINGS, TARGET, poisoned, triggered
from laconic.compression import PRESETS as CODECS
from laconic.coordinator.aggregation.rows import Rows
from laconic.coordinator.aggregation.rule import aggregate
from laconic.coordinator.aggregation.settings import PRESETS, AggregationSettings
from laconic.schema import Schema, Vector

DEVICES, SHARE = 50, 0.2
ROUNDS, LAST = 20, 3
SPREADS = ("uniform", "skewed")
"""How classes are spread over devices: evenly, or by a Dirichlet of this concentration."""
CONCENTRATION = 0.5
SEEDS = (0, 1, 2)
"""With all three the mean and the presets run three times."""
RATE, DECAY = 0.2, 0.97

CLEAN = "none"
RULES: dict[str, AggregationSettings] = {
    "mean": AggregationSettings(),
    **{
        name: AggregationSettings(name)
        for name in ("norm_bound", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median")
    },
    **{
        f"mixing, {name}": AggregationSettings(name, mixing=True)
        for name in ("trimmed_mean", "geometric_median")
    },
}
HELD = {name: next(k for k, v in RULES.items() if v == preset) for name, preset in PRESETS.items()}
"""Presets by name, with the row of the table that they are; these and the mean run with every seed."""

POINTS = {"uniform": 0.05, "skewed": 0.10}
"""How far below the clean run a robust preset may be."""


@dataclass(frozen=True)
class Description:
    """One run. `codec`: a preset for updates and models, or "" for plain float32 without a residual."""

    rule: str
    attack: str
    spread: str
    seed: int
    codec: str = ""


def descriptions(seeds: Sequence[int] = SEEDS) -> list[Description]:
    """Every run: all rules once, those that are held with every seed, some with the product's codec too."""
    several = ("mean", *HELD.values())
    made = [
        Description(rule, attack, spread, seed)
        for rule, attack, spread in combinations(RULES, TAMPERINGS, SPREADS)
        for seed in (seeds if rule in several else seeds[:1])
    ]
    sparse = ("mean", "median", "trimmed_mean", *HELD.values())
    return made + [
        Description(rule, attack, "uniform", seeds[0], "small")
        for rule, attack in combinations(dict.fromkeys(sparse), (CLEAN, "sign flip"))
    ]


def measure(pool: Executor, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """All runs, and the tables of accuracy and of backdoors."""
    wanted = descriptions(seeds)
    waiting = [pool.submit(played, d) for d in wanted]
    runs = []
    for done in as_completed(waiting):
        runs.append(done.result())
        if len(runs) % 20 == 0:
            print(f"bench: attacks, {len(runs)} of {len(wanted)}", file=sys.stderr)
    rules, attacks = list(RULES), list(TAMPERINGS)
    runs.sort(key=lambda r: (rules.index(r["rule"]), attacks.index(r["attack"]), r["spread"], r["seed"]))
    return {
        "devices": DEVICES,
        "malicious": SHARE,
        "rounds": ROUNDS,
        "seeds": len(seeds),
        "concentration": CONCENTRATION,
        "accuracy": {spread: _table(runs, spread, "accuracy") for spread in SPREADS},
        "backdoor": {spread: _table(runs, spread, "backdoor") for spread in SPREADS},
        "compressed": _table(runs, "uniform", "accuracy", codec="small"),
        "runs": runs,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """Each preset under its worst attack, against the clean run with the mean."""
    made = []
    for (preset, rule), spread in combinations(HELD.items(), SPREADS):
        table = found["accuracy"][spread]
        worst = min(table[rule].values()) - table["mean"][CLEAN]
        attack = min(table[rule], key=table[rule].__getitem__)
        name = f"attacks, {spread}: {preset} under its worst ({attack}), above the clean run"
        made.append(at_least(name, worst, -POINTS[spread]))
    return made


def played(d: Description) -> dict[str, Any]:
    """One run: accuracy over the last rounds, and how many images with a trigger pass for its class."""
    task = load("digits_mlp")
    rng = np.random.default_rng([d.seed, 3])
    bad = set(rng.permutation(DEVICES)[: round(SHARE * DEVICES)].tolist()) if d.attack != CLEAN else set()
    dealt = [task.data.train.at(i) for i in _dealt(task.data.train.y, d)]
    shards = [poisoned(part, d.attack) if i in bad else part for i, part in enumerate(dealt)]
    settings, tamper = RULES[d.rule], TAMPERINGS[d.attack]
    last: dict[str, Vector] = {}

    def combine(number: int, said: Sequence[Contribution]) -> Vector:
        rows = np.array([c.vector for c in said], np.float64)
        malicious = np.array([c.device in bad for c in said])
        if malicious.any():
            rows[malicious] = tamper(rows[~malicious], rows[malicious], rng)
        made = rows.astype(np.float32)
        if settings.rule == "mean" and settings.streams:
            samples = np.array([c.samples for c in said], np.float64)
            return np.asarray(np.average(made, axis=0, weights=samples), np.float32)
        return aggregate(settings, Rows(made.__getitem__, len(made), task.schema.size), number)

    def score(number: int, weights: Vector) -> float:
        last["weights"] = weights
        return task.accuracy(weights)

    codec = _plain if not d.codec else product(CODECS[d.codec])
    points = run(
        task,
        skew=0.0,
        seed=d.seed,
        rounds=ROUNDS,
        up=codec,
        down=codec,
        federation=Federation(
            devices=DEVICES,
            rate=decaying(RATE, DECAY),
            feedback=bool(d.codec),
            shards=lambda number: shards,
            score=score,
            combine=combine,
        ),
    )
    test = task.data.test
    others = Part(test.x, test.y).at(np.flatnonzero(test.y != TARGET))
    fooled = task.trainer.evaluate(last["weights"], triggered(others.x), np.full(len(others), TARGET))
    return {
        **asdict(d),
        "accuracy": statistics.mean(p.accuracy for p in points[-LAST:]),
        "backdoor": fooled.accuracy,
    }


def _dealt(labels: Labels, d: Description) -> list[Indices]:
    if d.spread == "uniform":
        return deal(labels, DEVICES, 0.0, d.seed)
    return deal_dirichlet(labels, DEVICES, CONCENTRATION, d.seed)


def _plain(target: Vector, schema: Schema, number: int, state: State, rng: np.random.Generator) -> Sent:
    return Sent(4 * target.size, target)


def _table(runs: Sequence[dict[str, Any]], spread: str, what: str, codec: str = "") -> dict[str, Any]:
    """By rule and attack: the mean over the seeds."""
    table: dict[str, dict[str, float]] = {}
    chosen = [r for r in runs if r["spread"] == spread and r["codec"] == codec]
    for rule, attack in dict.fromkeys((r["rule"], r["attack"]) for r in chosen):
        if what == "backdoor" and not (attack == CLEAN or attack.startswith("backdoor")):
            continue
        values = [r[what] for r in chosen if (r["rule"], r["attack"]) == (rule, attack)]
        table.setdefault(rule, {})[attack] = statistics.mean(values)
    return table
