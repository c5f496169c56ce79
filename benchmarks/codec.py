"""The update codec: rate, rate against distortion, speed, whole federated runs, long lives with a gate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

# First: it sets the number of threads before numpy is imported.
import _codec  # noqa: F401
from _codec import distortion, learning, lives, page, pictures, rate, speed
from _parts import Found, Part, measure, merge

RESULTS = Path(__file__).parent / "results" / "codec.json"

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
    keep = (lambda fresh: _write(fresh, parts)) if options.write else None
    return measure("codec", parts, wanted, keep)


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
    told = merge("codec", RESULTS, fresh, parts)
    pictures.draw(told["results"])
    page.fill(told)


if __name__ == "__main__":
    sys.exit(main())
