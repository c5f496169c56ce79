"""The coordinator: malicious, slow and vanishing devices, thousands at once, kills at any moment, budgets."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# First: it sets the number of threads before numpy is imported.
import _codec  # noqa: F401
from _coordinator import attacks, budgets, kills, load, pages, restart, selection, stragglers
from _result import Bar, emit, report

RESULTS = Path(__file__).parent / "results" / "coordinator.json"
WORKERS = 2

Found = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """What is measured, with a pool of processes for those that can use one, and its bars."""

    measure: Callable[[Executor], Found]
    bars: Callable[[Found], list[Bar]]


PARTS = ("attacks", "stragglers", "selection", "load", "kills", "budgets", "restart")


def main() -> int:
    """The parts asked for; with --write they replace what the file of results had of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--seeds", type=int, default=1, help="of the part attacks, up to 3")
    parser.add_argument("--devices", type=int, default=load.DEVICES, help="of the part load")
    parser.add_argument("--runs", type=int, default=kills.RUNS, help="of the part kills")
    parser.add_argument("--write", action="store_true", help=f"merge into {RESULTS.name}; tables of docs/")
    options = parser.parse_args()
    parts = _parts(options.seeds, options.devices, options.runs)
    wanted = options.parts.split(",")
    if unknown := [part for part in wanted if part not in parts]:
        parser.error(f"unknown part {unknown[0]!r}: some of {', '.join(parts)}")
    results: Found = {}
    bars: list[Bar] = []
    for name in wanted:
        print(f"bench: {name}", file=sys.stderr)
        with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
            results[name] = parts[name].measure(pool)
        bars += parts[name].bars(results[name])
        if options.write:
            # After each part: what has been measured is not lost with what has not.
            _write({name: results[name]}, parts)
    return emit("coordinator", results, bars)


def _parts(seeds: int, devices: int, runs: int) -> Mapping[str, Part]:
    return {
        "attacks": Part(lambda pool: attacks.measure(pool, attacks.SEEDS[:seeds]), attacks.bars),
        "stragglers": Part(stragglers.measure, stragglers.bars),
        "selection": Part(selection.measure, selection.bars),
        "load": Part(lambda pool: load.measure(devices), load.bars),
        "kills": Part(lambda pool: kills.measure(runs), kills.bars),
        "budgets": Part(budgets.measure, budgets.bars),
        "restart": Part(lambda pool: restart.measure(), restart.bars),
    }


def _write(fresh: Found, parts: Mapping[str, Part]) -> None:
    known: Found = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else {}
    merged = {name: (known | fresh)[name] for name in PARTS if name in known | fresh}
    bars = [bar for name, found in merged.items() for bar in parts[name].bars(found)]
    RESULTS.write_text(json.dumps(report("coordinator", merged, bars), indent=2) + "\n")
    pages.fill(merged)


if __name__ == "__main__":
    sys.exit(main())
