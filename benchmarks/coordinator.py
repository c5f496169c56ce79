"""The coordinator: malicious, slow and vanishing devices, thousands at once, kills at any moment, budgets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

# First: it sets the number of threads before numpy is imported.
import _codec  # noqa: F401
from _coordinator import attacks, budgets, kills, load, pages, restart, selection, stragglers
from _parts import Found, Part, measure, merge

RESULTS = Path(__file__).parent / "results" / "coordinator.json"

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
    keep = (lambda fresh: _write(fresh, parts)) if options.write else None
    return measure("coordinator", parts, wanted, keep)


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
    pages.fill(merge("coordinator", RESULTS, fresh, parts)["results"])


if __name__ == "__main__":
    sys.exit(main())
