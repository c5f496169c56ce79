"""Long lives with a gate as a part of the benchmark: runs spread over processes, and bars."""

from __future__ import annotations

import statistics
from concurrent.futures import Executor
from itertools import product as combinations
from typing import Any

from _result import Bar, at_most

from _codec import long_lives
from _codec.baselines import product
from laconic.compression import PRESETS

SKEWS = (0.0, 0.9)
SEEDS = (0, 1, 2)
RECOMMENDED = next(n for n, way in long_lives.WAYS.items() if way is long_lives.ECHOED)
CODED = f"{RECOMMENDED}, preset small"
"""The recommended gate with the product's codec, in place of the quick one."""

QUIET = 0.1
"""Share of rounds in which a device may speak while nothing changes."""
WITHIN = 2
"""Rounds after the drift in which every drifted device speaks."""
DEFICIT = 0.01
"""Of accuracy against the run without a gate, over the 40 rounds after the drift: "as fast as without"."""


def measure(pool: Executor) -> dict[str, Any]:
    """Every gate's findings by skew: a list with one entry a seed; with the product's codec, of one seed."""
    cells = [*combinations(SKEWS, SEEDS, [False]), *combinations(SKEWS, SEEDS[:1], [True])]
    tables: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for table in pool.map(_cell, cells):
        for skew, gates in table.items():
            for name, found in gates.items():
                tables.setdefault(skew, {}).setdefault(name, []).extend(found)
    return {
        "recommended": RECOMMENDED,
        "coded": CODED,
        "rounds": long_lives.ROUNDS,
        "drift_after": long_lives.DRIFT,
        "gates": tables,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """On the recommended gate, the worst or the mean over seeds."""
    made = []
    for (skew, gates), way in combinations(found["gates"].items(), (found["recommended"], found["coded"])):
        seeds = gates[way]
        name = f"lives, {skew}, gate {way!r}"
        words = max(s["first_word"] or float("inf") for s in seeds)
        made += [
            at_most(
                f"{name}: share of rounds in which devices speak before the drift, worst",
                max(s["rate_quiet"] for s in seeds),
                QUIET,
            ),
            at_most(f"{name}: rounds until every drifted device has spoken, worst", words, WITHIN),
            at_most(
                f"{name}: accuracy below the ungated run's after the drift, mean",
                statistics.mean(s["deficit"] for s in seeds),
                DEFICIT,
            ),
        ]
    return made


def _cell(cell: tuple[float, int, bool]) -> dict[str, Any]:
    skew, seed, coded = cell
    if not coded:
        return long_lives.results(skews=(skew,), seeds=(seed,))
    ways, codec = {CODED: long_lives.ECHOED}, product(PRESETS["small"])
    return long_lives.results(skews=(skew,), seeds=(seed,), ways=ways, codec=codec)
