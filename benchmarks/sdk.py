"""The device: idle, starting, predicting while it trains, yielding, losing its power at any moment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

# First: it sets the number of threads before numpy is imported.
import _codec  # noqa: F401
from _parts import Found, Part, measure, merge
from _sdk import idle, latency, power, start, yielding

RESULTS = Path(__file__).parent / "results" / "sdk.json"

PARTS = ("idle", "start", "latency", "yield", "power")


def main() -> int:
    """The parts asked for; with --write they replace what the file of results had of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--quiet-s", type=float, default=idle.QUIET_S, help="of the part idle")
    parser.add_argument("--losses", type=int, default=power.LOSSES, help="of the part power")
    parser.add_argument("--seed", type=int, default=0, help="of the parts yield and power")
    parser.add_argument("--write", action="store_true", help=f"merge into {RESULTS.name}")
    options = parser.parse_args()
    parts = _parts(options.quiet_s, options.losses, options.seed)
    wanted = options.parts.split(",")
    if unknown := [part for part in wanted if part not in parts]:
        parser.error(f"unknown part {unknown[0]!r}: some of {', '.join(parts)}")
    keep = (lambda fresh: _write(fresh, parts)) if options.write else None
    return measure("sdk", parts, wanted, keep)


def _write(fresh: Found, parts: Mapping[str, Part]) -> None:
    merge("sdk", RESULTS, fresh, parts)


def _parts(quiet_s: float, losses: int, seed: int) -> Mapping[str, Part]:
    return {
        "idle": Part(lambda pool: idle.measure(quiet_s), idle.bars),
        "start": Part(lambda pool: start.measure(), start.bars),
        "latency": Part(lambda pool: latency.measure(), latency.bars),
        "yield": Part(lambda pool: yielding.measure(seed=seed), yielding.bars),
        "power": Part(lambda pool: power.measure(losses, seed), power.bars),
    }


if __name__ == "__main__":
    sys.exit(main())
