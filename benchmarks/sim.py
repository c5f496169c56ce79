"""The simulator's world: published joules, events a minute, a hundred thousand devices, real MQTT."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from _parts import Part, measure, merge
from _sim import (
    activity,
    cifar,
    energy,
    events,
    experiments,
    flute,
    learning,
    population,
    real,
    rounds,
    turbofan,
)

RESULTS = Path(__file__).parent / "results" / "sim.json"

PARTS = {
    "energy": Part(lambda pool: energy.measure(), energy.bars),
    "events": Part(lambda pool: events.measure(), events.bars),
    "mnist": Part(experiments.measure, experiments.bars),
    "activity": Part(activity.measure, activity.bars),
    "learning": Part(lambda pool: learning.measure(), learning.bars),
    "population": Part(lambda pool: population.measure(), population.bars),
    "rounds": Part(lambda pool: rounds.measure(), rounds.bars),
    "flute": Part(lambda pool: flute.measure(), flute.bars),
    "cifar": Part(lambda pool: cifar.measure(), cifar.bars),
    "real": Part(lambda pool: real.measure(), real.bars),
    "turbofan": Part(lambda pool: turbofan.measure(), turbofan.bars),
}


def main() -> int:
    """The parts asked for; with --write they replace what the file of results had of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--write", action="store_true", help=f"merge into {RESULTS.name}")
    options = parser.parse_args()
    wanted = options.parts.split(",")
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}: some of {', '.join(PARTS)}")
    keep = (lambda fresh: merge("sim", RESULTS, fresh, PARTS)) if options.write else None
    return measure("sim", PARTS, wanted, keep)


if __name__ == "__main__":
    sys.exit(main())
