"""Starts the workers of the training benchmark and lets them measure in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from _environments import ROOT, Environment

from _training.worker import Task

HERE = Path(__file__).resolve().parent
ZOO_FOLDER = ROOT / "tests" / "training"
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

Timings: TypeAlias = dict[str, list[float]]
"""Seconds of a step, one for each turn, by what was measured."""


@dataclass(frozen=True)
class Contender:
    """A library in the comparison: its worker's script and the environment that it runs in."""

    name: str
    script: str
    home: Environment


def once(contender: Contender, task: Task) -> dict[str, Any]:
    """What a worker tells that measures once and ends.

    Raises `SystemExit` with its last words if it fails.
    """
    command = _command(contender, task)
    done = subprocess.run(command, env=_environ(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender.name}, {task.model}: {_last_words(done.stderr)}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def in_turns(contenders: Sequence[tuple[Contender, Task]], turns: int) -> dict[str, Timings | str]:
    """Every contender's timings, or why it could not run.

    Each has a process of its own, and never two of them work at once.
    """
    running: dict[str, subprocess.Popen[str]] = {}
    results: dict[str, Timings | str] = {}
    try:
        for contender, task in contenders:
            if contender.home.trouble:
                results[contender.name] = contender.home.trouble
                continue
            with tempfile.TemporaryFile("w+") as said:
                worker = subprocess.Popen(
                    _command(contender, task),
                    env=_environ(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                )
                running[contender.name] = worker
                if not _line(worker):
                    worker.wait()
                    del running[contender.name]
                    said.seek(0)
                    results[contender.name] = _last_words(said.read())
        for _ in range(turns):
            for name, worker in running.items():
                assert worker.stdin is not None
                worker.stdin.write("measure\n")
                worker.stdin.flush()
                timings = results.setdefault(name, {})
                assert isinstance(timings, dict)
                for thing, seconds in json.loads(_line(worker)).items():
                    timings.setdefault(thing, []).append(seconds)
    finally:
        for worker in running.values():
            worker.communicate()
    return results


def medians(timings: Timings) -> Mapping[str, float]:
    """The median of each series."""
    return {thing: statistics.median(series) for thing, series in timings.items()}


def _command(contender: Contender, task: Task) -> list[str]:
    fields = asdict(task) | {"folder": str(task.folder)}
    return [contender.home.python, str(HERE / contender.script), json.dumps(fields)]


def _environ() -> dict[str, str]:
    """One thread everywhere; the zoo in reach; nothing of the surrounding environment's packages."""
    kept = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, **THREADS, "PYTHONPATH": str(ZOO_FOLDER)}


def _line(worker: subprocess.Popen[str]) -> str:
    """A worker's next line that is JSON, or nothing if it ended; libraries may print lines of their own."""
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.startswith("{"):
            return line
    return ""


def _last_words(stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "ended without a word"
