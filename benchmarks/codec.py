"""The update codec: rate, rate against distortion, speed, whole federated runs, long lives with a gate."""

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
from _codec import distortion, learning, lives, page, pictures, rate, speed
from _result import Bar, emit, report

RESULTS = Path(__file__).parent / "results" / "codec.json"
WORKERS = 2

Found = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """What is measured with a pool of processes, and its bars."""

    measure: Callable[[Executor], Found]
    bars: Callable[[Found], list[Bar]]


PARTS = ("rate", "distortion", "speed", "learning", "lives")


def main() -> int:
    """The parts asked for; with --write they replace what the file of results had of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--rounds", type=int, default=learning.ROUNDS, help="of the part learning")
    parser.add_argument("--seeds", type=int, default=len(learning.SEEDS), help="of the part learning")
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"merge into {RESULTS.name}; tables and pictures of docs/",
    )
    options = parser.parse_args()
    parts = _parts(options.rounds, options.seeds)
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
    return emit("codec", results, bars)


def _parts(rounds: int, seeds: int) -> Mapping[str, Part]:
    return {
        "rate": Part(rate.measure, rate.bars),
        "distortion": Part(distortion.measure, distortion.bars),
        # Processes start with work: none does here.
        "speed": Part(lambda pool: speed.measure(), speed.bars),
        "learning": Part(lambda pool: learning.measure(pool, rounds, learning.SEEDS[:seeds]), learning.bars),
        "lives": Part(lives.measure, lives.bars),
    }


def _write(fresh: Found, parts: Mapping[str, Part]) -> None:
    known: Found = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else {}
    merged = {name: (known | fresh)[name] for name in PARTS if name in known | fresh}
    bars = [bar for name, found in merged.items() for bar in parts[name].bars(found)]
    told = report("codec", merged, bars)
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")
    pictures.draw(merged)
    page.fill(told)


if __name__ == "__main__":
    sys.exit(main())
