"""Whole federated runs: accuracy against bytes, up and down, of every preset and of its rivals."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass
from itertools import product as combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any

from _environments import CACHE, ROOT
from _result import Bar, at_least

from _codec.baselines import BASELINES, product
from _codec.federation import Codec, Federation, decaying, run
from _codec.tasks import RATES, TaskName, load
from laconic.compression import PRESETS

SERVER_RATE = 1.5
"""The coordinator's step, of all codecs; float32 also runs with 1, which is FedAvg."""

TASKS: tuple[TaskName, ...] = ("digits", "mnist")
SKEWS = (0.0, 0.9, 1.0)
SEEDS = (0, 1, 2)
ROUNDS = 30
DEVICES = 20

PLAIN = "float32"
CODECS: Mapping[str, tuple[Codec, Codec]] = MappingProxyType(
    {
        **{n: (BASELINES[n], BASELINES[n]) for n in (PLAIN, "8-bit", "4-bit", "STC 1 %")},
        **{n: (product(PRESETS[n]), product(PRESETS[n])) for n in ("small", "tiny", "fast")},
    }
)
"""What devices send with, and what the coordinator sends with."""

HELD = ("small", "tiny")
"""The presets that bars hold; they and float32 run with every seed, all others with the first."""

LAST = 5
"""Rounds over which accuracy is the mean: it goes up and down by points from one to the next."""

MARGIN = 0.005
FEWER = 200
BARRED = (0.9, 1.0)

_RIVALS = {"below_fedavg": "FedAvg", "below": "the better float32"}

FOLDER = CACHE / "codec-runs"
_RESTS_ON = ("baselines", "data", "federation", "models", "tasks")
"""Modules of this folder that a run's result follows from, beside `laconic.compression`."""


@dataclass(frozen=True)
class Description:
    """One run."""

    task: TaskName
    skew: float
    seed: int
    codec: str
    server_rate: float
    rounds: int

    @property
    def curve(self) -> str:
        """Its codec, and the coordinator's step where there are two of it."""
        plain = self.codec == PLAIN and self.server_rate != SERVER_RATE
        return f"{self.codec}, step {self.server_rate:g}" if plain else self.codec


def descriptions(rounds: int = ROUNDS, seeds: Sequence[int] = SEEDS) -> list[Description]:
    """Every run, the longest first, so that two workers end together."""
    made = []
    for task, skew, codec in combinations(TASKS, SKEWS, CODECS):
        for seed in seeds if codec in (PLAIN, *HELD) else seeds[:1]:
            steps = dict.fromkeys((SERVER_RATE, 1.0) if codec == PLAIN else (SERVER_RATE,))
            made += [Description(task, skew, seed, codec, step, rounds) for step in steps]
    return sorted(made, key=lambda d: (d.task, d.codec in (PLAIN, "STC 1 %", "fast")))


def measure(pool: Executor, rounds: int = ROUNDS, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """All runs, and for each task and skew what every codec reached for how many bytes."""
    wanted = descriptions(rounds, seeds)
    source = source_digest()
    waiting = {pool.submit(kept_or_run, d, source): d for d in wanted}
    runs = []
    for done in as_completed(waiting):
        runs.append(done.result())
        told = runs[-1]
        print(
            f"bench: learning, {len(runs)} of {len(wanted)}: {told['task']}, skew {told['skew']:g}, seed"
            f" {told['seed']}, {told['curve']}: {told['accuracy']:.3f}, {told['megabytes'][-1]:.2f} MB,"
            f" {told['seconds']:.0f} s",
            file=sys.stderr,
        )
    runs.sort(key=lambda r: (r["task"], r["skew"], r["curve"], r["seed"]))
    return {
        "rounds": rounds,
        "devices": DEVICES,
        "server_rate": SERVER_RATE,
        "seeds": {name: len(seeds if name in (PLAIN, *HELD) else seeds[:1]) for name in CODECS},
        "table": {_cell(t, s): _table(runs, t, s) for t, s in combinations(TASKS, SKEWS)},
        "runs": runs,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """The most that a preset saves among those within the margin; 0 if none is.

    Within the margin of FedAvg (McMahan et al., AISTATS 2017: the coordinator's step is 1), and of the better
    float32, which may have the longer step that the presets have.
    """
    made = []
    for task, skew, (key, rival) in combinations(TASKS, BARRED, _RIVALS.items()):
        table = found["table"][_cell(task, skew)]
        fine = [table[n]["ratio"] for n in HELD if table[n][key] <= MARGIN]
        name = f"learning, {task}, skew {skew:g}: times fewer bytes within half a point of {rival}"
        made.append(at_least(name, max(fine, default=0.0), FEWER))
    return made


def kept_or_run(description: Description, source: str) -> dict[str, Any]:
    """A run's result from the cache folder, or made and put there. `source`: of `source_digest`."""
    told = json.dumps([asdict(description), source], sort_keys=True)
    path = FOLDER / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    result = _run(description)
    FOLDER.mkdir(parents=True, exist_ok=True)
    # A reader never meets half a file.
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(result))
    partial.replace(path)
    return result


def source_digest() -> str:
    """Of the source that results follow from: a run is made again when it has changed."""
    here = Path(__file__).parent
    files: Iterable[Path] = (ROOT / "src/laconic/compression").rglob("*.py")
    digest = hashlib.sha256()
    for file in sorted([*files, *(here / f"{name}.py" for name in _RESTS_ON)]):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _run(d: Description) -> dict[str, Any]:
    began = time.process_time()
    up, down = CODECS[d.codec]
    federation = Federation(
        devices=DEVICES,
        # With one class a device and a constant rate even float32 falls apart.
        rate=decaying(RATES["sgd"], 0.97 if d.skew == 1 else 1.0),
        server_rate=d.server_rate,
    )
    points = run(
        load(d.task), skew=d.skew, seed=d.seed, rounds=d.rounds, up=up, down=down, federation=federation
    )
    return {
        **asdict(d),
        "curve": d.curve,
        "accuracy": statistics.mean(p.accuracy for p in points[-LAST:]),
        "accuracies": [round(p.accuracy, 5) for p in points],
        "megabytes": [p.bytes / 1e6 for p in points],
        "megabytes_up": points[-1].bytes_up / 1e6,
        "seconds": time.process_time() - began,
    }


def _cell(task: str, skew: float) -> str:
    return f"{task}, skew {skew:g}"


def _table(runs: Sequence[dict[str, Any]], task: str, skew: float) -> dict[str, dict[str, Any]]:
    """Each codec's accuracy, how far that is below the better float32's on the same seeds, and its bytes."""
    of = [r for r in runs if r["task"] == task and r["skew"] == skew]
    by_curve: dict[str, dict[int, dict[str, Any]]] = {}
    for r in of:
        by_curve.setdefault(r["curve"], {})[r["seed"]] = r
    plain = [c for c in by_curve if c.startswith(PLAIN)]
    fedavg = f"{PLAIN}, step 1"
    table = {}
    for curve, seeds in by_curve.items():
        accuracy = statistics.mean(r["accuracy"] for r in seeds.values())
        best = max(statistics.mean(by_curve[p][s]["accuracy"] for s in seeds) for p in plain)
        megabytes = statistics.mean(r["megabytes"][-1] for r in seeds.values())
        float32 = statistics.mean(by_curve[plain[0]][s]["megabytes"][-1] for s in seeds)
        table[curve] = {
            "seeds": len(seeds),
            "accuracy": accuracy,
            "accuracy_worst_seed": min(r["accuracy"] for r in seeds.values()),
            "below": best - accuracy,
            "below_fedavg": statistics.mean(by_curve[fedavg][s]["accuracy"] for s in seeds) - accuracy,
            "megabytes": megabytes,
            "megabytes_up": statistics.mean(r["megabytes_up"] for r in seeds.values()),
            "ratio": float32 / megabytes,
        }
    return table
