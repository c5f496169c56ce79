"""Training next to PyTorch and others: time of a step, memory, start, size of an install, 10,000 steps."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _environments import Environment, base_install, environment, megabytes
from _result import Bar, at_least, at_most, emit
from _training.processes import HERE, ZOO_FOLDER, Contender, Timings, in_turns, medians, once
from _training.worker import Task

from laconic.errors import LaconicError
from laconic.training import prepare

PEERS = ("torch==2.13.0", "onnx", "onnxscript", "onnxruntime", "onnx-ad==0.3.0")
# The last release for training on devices: it imports torch, and its builder of graphs wants an older onnx.
ORT_TRAINING = ("onnxruntime-training-cpu==1.19.2", "onnx==1.16.2", "numpy<2", "protobuf<5", "torch==2.13.0")

BATCHES = (1, 8, 32)
TURNS = 7
SECONDS = 0.3
STARTS = 5


@dataclass(frozen=True)
class Limits:
    """The most that a step may take, as a share of PyTorch's, at batch 1 and at batch 32."""

    one: float
    many: float


MODELS: Mapping[str, Limits] = {
    "mlp": Limits(0.4, 0.75),
    "lenet": Limits(0.4, 0.75),
    "fedavg_cnn": Limits(0.8, 1.0),
    "mobilenet": Limits(0.8, 1.0),
    "resnet": Limits(0.8, 1.0),
    "encoder": Limits(0.4, 1.0),
    "lstm": Limits(0.8, 1.2),
    "gru": Limits(0.8, 1.2),
    "cnn1d": Limits(0.4, 1.0),
    "autoencoder": Limits(0.8, 1.0),
}
PEAK_MB = {"lenet": 75.0, "fedavg_cnn": 120.0, "mobilenet": 120.0}
HEAD = ".head"
"""What a bundle's name ends in when all but its model's head is frozen."""


def main() -> int:
    """All models at all batch sizes, or with --quick two of them in fewer turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two models, few turns, no other peers")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), help="only these")
    options = parser.parse_args()
    names = options.models or (["mlp", "lenet"] if options.quick else list(MODELS))
    turns, seconds = (3, 0.1) if options.quick else (TURNS, SECONDS)
    peers = environment("peers", *PEERS)
    if peers.trouble:
        raise SystemExit(f"the environment for PyTorch could not be made: {peers.trouble}")
    base = base_install()
    if base.trouble:
        raise SystemExit(f"the project could not be installed: {base.trouble}")
    ours, torch = Contender("laconic", "laconic_speed.py", base), Contender("torch", "torch_speed.py", peers)
    others = [] if options.quick else _other_peers(peers)
    with tempfile.TemporaryDirectory() as name:
        tasks, refused = _prepare(Path(name), names, peers)
        tasks = {n: replace(task, seconds=seconds) for n, task in tasks.items()}
        speed = {
            f"{name}, batch {batch}": _compared((ours, torch, *others), replace(task, batch=batch), turns)
            for name, task in tasks.items()
            for batch in BATCHES
        }
        head = _head_only(ours, tasks["mobilenet"], turns) if "mobilenet" in tasks else {}
        footprint = {n: _footprint(tasks[n], base, peers) for n in PEAK_MB if n in tasks}
        long = [] if options.quick else [n for n in ("mlp", "lenet") if n in tasks]
        leak = {n: _long_run(tasks[n], base) for n in long}
    sizes, ours_alone = megabytes(base), megabytes(base, bytecode=False)["laconic"]
    results = {
        "refused": refused,
        "step": speed,
        "mobilenet_head_only": head,
        "footprint": footprint,
        "ten_thousand_steps": leak,
        "base_install_mb": sizes,
        "base_install_ours_without_bytecode_mb": ours_alone,
    }
    bars = [
        at_most("models of the comparison that cannot be prepared", len(refused), 0),
        *_speed_bars(speed),
        *[at_least(f"mobilenet: full / head only, {b}", r["speedup"], 8) for b, r in head.items()],
        *_footprint_bars(footprint),
        *[at_most(f"{n}: growth of memory over 10,000 steps", r["growth"], 0.02) for n, r in leak.items()],
        at_most("MB of a base install", sum(sizes.values()), 190),
        at_most("MB of a base install, ours, without compiled bytecode", ours_alone, 2),
    ]
    return emit("training", results, bars)


def _other_peers(peers: Environment) -> list[Contender]:
    """Who else trains ONNX graphs on a CPU: for information, without bars."""
    ort_training = environment("ort-training", *ORT_TRAINING)
    return [
        Contender("onnx-ad", "onnx_ad_speed.py", peers),
        Contender("onnxruntime-training-cpu", "ort_training_speed.py", ort_training),
    ]


def _prepare(
    folder: Path, names: Sequence[str], peers: Environment
) -> tuple[dict[str, Task], dict[str, str]]:
    """Export every model and write its bundles: a task for each, and the reasons of those refused."""
    command = [peers.python, str(HERE / "export.py"), str(folder), *names]
    env = {"PYTHONPATH": str(ZOO_FOLDER)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the models could not be exported: {done.stderr[-2000:]}")
    tasks: dict[str, Task] = {}
    refused: dict[str, str] = {}
    for name, settings in json.loads(done.stdout.splitlines()[-1]).items():
        model = (folder / f"{name}.onnx").read_bytes()
        try:
            (folder / f"{name}.bundle").write_bytes(prepare(model, loss=settings["loss"]))
            if name == "mobilenet":
                head = prepare(model, loss=settings["loss"], frozen=["features.*"])
                (folder / f"{name}{HEAD}.bundle").write_bytes(head)
        except LaconicError as e:
            refused[name] = str(e)
        else:
            tasks[name] = Task(folder, name, **settings)
    return tasks, refused


def _compared(contenders: Sequence[Contender], task: Task, turns: int) -> dict[str, Any]:
    """Milliseconds of a step of each, and our share of PyTorch's: the median of the turns' ratios."""
    print(f"bench: {task.model}, batch {task.batch}", file=sys.stderr)
    timings = in_turns([(c, task) for c in contenders], turns)
    ours, torch = _needed(timings, "laconic"), _needed(timings, "torch")
    ratio = _ratio(ours["default"], torch["step"])
    print(f"bench:   {ratio:.2f} of PyTorch's time", file=sys.stderr)
    return {
        "milliseconds": {
            name: found if isinstance(found, str) else {k: 1e3 * s for k, s in medians(found).items()}
            for name, found in timings.items()
        },
        "ratio": ratio,
        "ratio_step_form": _ratio(ours["step"], torch["step"]),
    }


def _needed(timings: Mapping[str, Timings | str], name: str) -> Timings:
    found = timings[name]
    if isinstance(found, str):
        raise SystemExit(f"{name} could not train: {found}")
    return found


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _head_only(ours: Contender, task: Task, turns: int) -> dict[str, dict[str, float]]:
    """How many times faster training is with all but the head frozen."""
    results: dict[str, dict[str, float]] = {}
    for batch in BATCHES:
        full = replace(ours, name="full"), replace(task, batch=batch)
        head = replace(ours, name="head"), replace(task, batch=batch, variant=HEAD)
        timings = in_turns([full, head], turns)
        pair = [_needed(timings, name)["default"] for name in ("full", "head")]
        results[f"batch {batch}"] = {
            "speedup": _ratio(*pair),
            "full_ms": 1e3 * statistics.median(pair[0]),
            "head_ms": 1e3 * statistics.median(pair[1]),
        }
    return results


def _footprint(task: Task, base: Environment, peers: Environment) -> dict[str, Any]:
    """Peak memory at batch 8 and time to the first finished step: medians over fresh processes."""
    result: dict[str, Any] = {}
    for contender in (
        Contender("laconic", "laconic_once.py", base),
        Contender("torch", "torch_once.py", peers),
    ):
        runs = [once(contender, task) for _ in range(STARTS)]
        result[contender.name] = {
            "peak_mb": statistics.median(r["peak_mb"] for r in runs),
            "first_step_ms": 1e3 * statistics.median(r["first_step_s"] for r in runs),
        }
    return result


def _long_run(task: Task, base: Environment) -> dict[str, Any]:
    """Memory over 10,000 steps at batch 8."""
    return once(Contender("laconic", "laconic_once.py", base), replace(task, variant="long"))


def _speed_bars(speed: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    bars = []
    for model, limits in MODELS.items():
        for batch, limit in ((1, limits.one), (32, limits.many)):
            if found := speed.get(cell := f"{model}, batch {batch}"):
                bars.append(at_most(f"{cell}: share of PyTorch's step", found["ratio"], limit))
    return bars


def _footprint_bars(footprint: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    bars = []
    for model, found in footprint.items():
        bars.append(at_most(f"{model}, batch 8: MB at the peak", found["laconic"]["peak_mb"], PEAK_MB[model]))
        bars.append(at_most(f"{model}: ms to the first step", found["laconic"]["first_step_ms"], 300))
    return bars


if __name__ == "__main__":
    sys.exit(main())
