"""The device: what a loss of power in the middle of anything leaves of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

# First: it sets the number of threads before numpy is imported.
import _codec  # noqa: F401
from _parts import Found, Part, measure, merge
from _sdk import power

RESULTS = Path(__file__).parent / "results" / "sdk.json"


def main() -> int:
    """The parts asked for; with --write they replace what the file of results had of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="power", help="some of %(default)s")
    parser.add_argument("--losses", type=int, default=power.LOSSES, help="of the part power")
    parser.add_argument("--seed", type=int, default=0, help="of the part power")
    parser.add_argument("--write", action="store_true", help=f"merge into {RESULTS.name}")
    options = parser.parse_args()
    parts = _parts(options.losses, options.seed)
    wanted = options.parts.split(",")
    if unknown := [part for part in wanted if part not in parts]:
        parser.error(f"unknown part {unknown[0]!r}: some of {', '.join(parts)}")
    keep = (lambda fresh: _write(fresh, parts)) if options.write else None
    return measure("sdk", parts, wanted, keep)


def _write(fresh: Found, parts: Mapping[str, Part]) -> None:
    merge("sdk", RESULTS, fresh, parts)


def _parts(losses: int, seed: int) -> Mapping[str, Part]:
    return {"power": Part(lambda pool: power.measure(losses, seed), power.bars)}


if __name__ == "__main__":
    sys.exit(main())
