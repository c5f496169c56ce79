"""Runs a scenario and prints one JSON line: when each round was scored, and the scores.

Usage: peers_scenario.py FILE THREADS, in the project's environment.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from laconic.device_sim import Scenario, run
from laconic.device_sim.scenario.running import Progress


def main(file: Path, threads: int) -> None:
    """All rounds; times are of the machine's monotonic clock."""
    at_s: dict[int, float] = {}

    def watch(progress: Progress) -> None:
        if progress.accuracy is not None:
            at_s.setdefault(progress.rounds, time.monotonic())

    result = run(Scenario.read(file), threads=threads, watch=watch)
    rounds = [row for row in result.rounds if row.round in at_s]
    found = {
        "at_s": [at_s[row.round] for row in rounds],
        "loss": [row.loss for row in rounds],
        "accuracy": [row.accuracy for row in rounds],
        "way": result.totals.way,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
