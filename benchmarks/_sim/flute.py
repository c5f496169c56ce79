"""The setting of FLUTE's README, here and in Flower: MNIST, a linear model, ten of 1,000 devices a round.

Wall seconds of a whole process each, on the same cores. Flower's client is NumPy, its data are arrays that
are mapped into memory, divided as the scenario divides them; the scenario reads the files as published.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from _environments import ROOT
from _result import Bar, at_least, at_most, unmeasured

from _sim import peers
from _sim.peers_arrays import write_arrays

MNIST = ROOT / (os.environ.get("LACONIC_DATA") or "../shared/data") / "mnist"
SCENARIO = peers.HERE / "flute.toml"
CLIENTS, COHORT, ROUNDS, BATCH, LEARNING_RATE = 1000, 10, 100, 10, 0.1

REPEATS = 3
LIMIT_S, FLOWER_LIMIT_S = 300.0, 1800.0
WHOLE_S, TIMES_FLOWER = 5.0, 40.0

Found = dict[str, Any]


def measure() -> Found:
    """Ours, Flower, and ours again; what could not be run says why as `trouble`."""
    if not MNIST.is_dir():
        trouble = {"trouble": f"no MNIST at {MNIST} (set LACONIC_DATA)"}
        return {"laconic": trouble, "flower": trouble}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(SCENARIO, folder)
        (folder / "mnist").symlink_to(MNIST, target_is_directory=True)
        samples = write_arrays(folder / SCENARIO.name, flat=True)
        first = [_ours(folder)]
        flower = _flower(folder, samples)
        return {"laconic": _several([*first, *(_ours(folder) for _ in range(REPEATS - 1))]), "flower": flower}


def bars(found: Found) -> list[Bar]:
    """Under 5 s in all; 40 times as fast as Flower; as good a model."""
    ours, flower = found["laconic"], found["flower"]
    return [
        _judged("flute: seconds in all", (ours,), WHOLE_S, lambda: ours["wall_s"], at_most),
        _judged(
            "flute: times as fast as Flower",
            (ours, flower),
            TIMES_FLOWER,
            lambda: flower["wall_s"] / ours["wall_s"],
            at_least,
        ),
        _judged(
            "flute: accuracy below Flower's",
            (ours, flower),
            0.01,
            lambda: flower["accuracy"] - ours["accuracy"],
            at_most,
        ),
    ]


def _judged(name: str, needed: tuple[Found, ...], limit: float, value: Any, judge: Any) -> Bar:
    if any("trouble" in n for n in needed):
        return unmeasured(name, limit)
    bar: Bar = judge(name, value(), limit)
    return bar


def _ours(folder: Path) -> Found:
    with tempfile.TemporaryDirectory() as output:
        laconic = Path(sys.executable).with_name("laconic")
        command = (laconic, "sim", "run", folder / SCENARIO.name, "--output", output)
        try:
            ran = peers.run(command, limit_s=LIMIT_S)
        except peers.PeerError as e:
            return {"trouble": str(e)}
        totals = json.loads((Path(output) / "run.json").read_text())["totals"]
    return {
        "wall_s": ran.wall_s,
        "processor_s": ran.processor[-1][1],
        "accuracy": totals["accuracy"],
        "rounds": totals["rounds"],
    }


def _several(runs: list[Found]) -> Found:
    """The one of median time, with all times; or the first that did not run."""
    for found in runs:
        if "trouble" in found:
            return found
    median = statistics.median_low([found["wall_s"] for found in runs])
    one = next(found for found in runs if found["wall_s"] == median)
    return one | {"all_wall_s": [found["wall_s"] for found in runs]}


def _flower(folder: Path, samples: int) -> Found:
    settings = {
        "folder": str(folder),
        "clients": CLIENTS,
        "cohort": COHORT,
        "samples": samples,
        "rounds": ROUNDS,
        "batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "cores": peers.CORES,
    }
    try:
        home = peers.flower()
        command = (home.python, peers.HERE / "flower_run.py", "flower_softmax", json.dumps(settings))
        ran = peers.run(command, limit_s=FLOWER_LIMIT_S, home=home)
    except peers.PeerError as e:
        return {"trouble": str(e)}
    at_s = ran.told["at_s"]
    return {
        "wall_s": ran.wall_s,
        "start_s": at_s[0] - ran.began_s,
        "round_s": (at_s[-1] - at_s[1]) / (ROUNDS - 1),
        "processor_s": ran.processor[-1][1],
        "accuracy": ran.told["accuracy"][-1],
        "rounds": len(at_s) - 1,
    }
