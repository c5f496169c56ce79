"""Updates of real runs, kept outside the repository: what rate and distortion are measured on.

Run as a program to write the files; `real_updates` writes what is missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from laconic.schema import Schema, TensorSpec, Vector

if TYPE_CHECKING:  # a session of onnxruntime is needed only where files are missing
    from _codec.tasks import TaskName

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laconic-bench/codec-updates"

ROUNDS = (3, 9, 17)
DEVICES = (0, 7)

RUNS: dict[str, tuple[TaskName, float]] = {
    "digits-90": ("digits", 0.9),
    "digits-100": ("digits", 1.0),
    "digits-uniform": ("digits", 0.0),
    "mnist-90": ("mnist", 0.9),
    "har-90": ("har", 0.9),
    "mlp-90": ("mlp", 0.9),
}
"""Files, and the task and skew of the run behind each; every file has that run with SGD and with Adam."""


@dataclass(frozen=True)
class Update:
    """One vector of a run.

    `name` is file/optimizer/round/who, who being `device0`, `device7` or `down`; `change` is what a device
    learnt (or the mean of what they sent), `target` the same with the residual: what is encoded.
    """

    name: str
    schema: Schema
    change: Vector
    target: Vector


def real_updates(*wanted: str) -> Iterator[Update]:
    """The updates of the files named (of all by default), made first where a file is missing."""
    for file in wanted or tuple(RUNS):
        path = FOLDER / f"{file}.npz"
        if not path.exists():
            write(file)
        yield from read(path)


def read(path: Path) -> Iterator[Update]:
    """The updates of one file.

    Arrays: `names` `(n,)`; `change` and `vector` (the target) float32 `(n, size)`; `tensors` the tensors'
    names; `ranks` their numbers of axes; `shapes` all axes in a row.
    """
    with np.load(path) as file:
        arrays: dict[str, NDArray[np.generic]] = dict(file)
    cuts = np.cumsum(arrays["ranks"])[:-1]
    shapes = [tuple(s.tolist()) for s in np.split(arrays["shapes"], cuts)]
    specs = zip(arrays["tensors"].tolist(), shapes, strict=True)
    schema = Schema(tuple(TensorSpec(name, shape) for name, shape in specs))
    rows = zip(arrays["names"].tolist(), arrays["change"], arrays["vector"], strict=True)
    for name, change, target in rows:
        yield Update(name, schema, change, target)


def write(file: str) -> Path:
    """Make one file's runs: 17 rounds with a dead zone in both directions, of 3.5 RMS, or 1.5 with Adam.

    What Adam learns is spread almost evenly over the values: beyond 3.5 RMS hardly anything would be sent.
    """
    from _codec.baselines import product
    from _codec.federation import Federation, Observation, decaying, run
    from _codec.tasks import RATES, load
    from laconic.compression import CodecSettings

    name, skew = RUNS[file]
    found: list[tuple[str, Vector, Vector]] = []
    schema = load(name).schema
    for optimizer in ("sgd", "adam"):

        def observe(seen: Observation, optimizer: str = optimizer) -> None:
            if seen.number in ROUNDS and (seen.direction == "down" or seen.device in DEVICES):
                who = "down" if seen.direction == "down" else f"device{seen.device}"
                found.append((f"{file}/{optimizer}/{seen.number}/{who}", seen.change, seen.target))

        step = 3.5 if optimizer == "sgd" else 1.5
        codec = product(CodecSettings(step_rms=step, low_rank=False))
        rate = decaying(RATES[optimizer], 0.97 if skew == 1 else 1.0)
        federation = Federation(optimizer=optimizer, rate=rate)
        points = run(
            load(name, optimizer),
            skew=skew,
            seed=0,
            rounds=max(ROUNDS),
            up=codec,
            down=codec,
            federation=federation,
            observe=observe,
        )
        print(file, optimizer, *(f"{p.accuracy:.3f}" for p in points), file=sys.stderr)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{file}.npz"
    # A reader never meets half a file.
    partial = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        partial,
        names=np.array([n for n, _, _ in found]),
        change=np.stack([c for _, c, _ in found]),
        vector=np.stack([t for _, _, t in found]),
        tensors=np.array([t.name for t in schema.tensors]),
        ranks=np.array([len(t.shape) for t in schema.tensors]),
        shapes=np.array([d for t in schema.tensors for d in t.shape]),
    )
    partial.replace(path)
    return path


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    for missing in sys.argv[1:] or [f for f in RUNS if not (FOLDER / f"{f}.npz").exists()]:
        print(write(missing))
