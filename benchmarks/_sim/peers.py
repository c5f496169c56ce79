"""Runs what is compared, each in a process of its own on the same cores; nothing of it stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from _environments import ROOT, Environment, environment

HERE = Path(__file__).resolve().parent
CORES = 2
LOOK_S = 0.25

FLOWER = ("flwr[simulation]==1.41.0", "torch==2.13.0")
PFL = ("pfl[pytorch]==0.6.0", "torch==2.13.0")

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""No peer tells anybody that it runs."""


class PeerError(Exception):
    """What is compared did not install, failed, or took too long."""


@dataclass(frozen=True)
class Run:
    """A process that ended well. Seconds at which something happened are of the machine's monotonic clock."""

    began_s: float
    ended_s: float
    processor: Sequence[tuple[float, float]]
    """When it was looked at, and the processor seconds of all its processes until then."""
    told: Mapping[str, Any]
    """The last line of its output that is JSON; empty if there is none."""

    @property
    def wall_s(self) -> float:
        """From its start to its end."""
        return self.ended_s - self.began_s

    def processor_s(self, since_s: float, until_s: float) -> float:
        """Processor seconds between two moments, by what was seen around them."""
        return _between(self.processor, until_s) - _between(self.processor, since_s)


@dataclass
class _Family:
    """A process and all that come of it, also those that it leaves behind."""

    root: psutil.Process
    members: set[psutil.Process] = field(default_factory=set)
    spent_s: dict[psutil.Process, float] = field(default_factory=dict)

    def look(self) -> float:
        """Processor seconds of all until now."""
        self.members.add(self.root)
        for known in list(self.members):
            try:
                self.members.update(known.children(recursive=True))
            except psutil.Error:
                continue
        for member in self.members:
            try:
                times = member.cpu_times()
            except psutil.Error:
                continue
            self.spent_s[member] = times.user + times.system
        return sum(self.spent_s.values())

    def end(self) -> None:
        """Kill what is left; a number that another process has by now is not touched (psutil looks)."""
        self.look()
        for member in self.members:
            try:
                member.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(list(self.members), timeout=10)


def flower() -> Environment:
    """Flower's environment, made the first time."""
    return environment("flower", *FLOWER)


def pfl() -> Environment:
    """pfl-research's environment, made the first time."""
    return environment("pfl", *PFL)


def run(
    command: Sequence[str | Path], *, limit_s: float, home: Environment | None = None, path: Path = HERE
) -> Run:
    """Run a command on the first `CORES` cores.

    `home`: whose environment it runs in, None for the project's own; `path`: where its imports are.
    Raises `PeerError` with its last words if it cannot, fails, or is not done within `limit_s`.
    """
    if home is not None and home.trouble:
        raise PeerError(f"does not install: {home.trouble}")
    words = [str(part) for part in command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began_s = time.monotonic()
        started = subprocess.Popen(words, env=_environ(path), cwd=ROOT, stdout=out, stderr=err, text=True)
        family = _Family(psutil.Process(started.pid))
        family.root.cpu_affinity(sorted(os.sched_getaffinity(0))[:CORES])
        seen: list[tuple[float, float]] = [(began_s, 0.0)]
        try:
            while started.poll() is None:
                if time.monotonic() - began_s > limit_s:
                    raise PeerError(f"not done in {limit_s:.0f} s")
                try:
                    started.wait(LOOK_S)
                except subprocess.TimeoutExpired:
                    seen.append((time.monotonic(), family.look()))
            ended_s = time.monotonic()
        finally:
            family.end()
            started.wait()
        out.seek(0)
        err.seek(0)
        said, cried = out.read(), err.read()
    if started.returncode:
        raise PeerError(last_words(cried) or f"ended with {started.returncode}")
    return Run(began_s, ended_s, seen, last_object(said))


def last_object(output: str) -> dict[str, Any]:
    """The last line that is a JSON object; libraries print lines of their own."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    return {}


def last_words(cried: str) -> str:
    """The end of the last line that says something."""
    lines = [line.strip() for line in cried.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else ""


def _between(seen: Sequence[tuple[float, float]], at_s: float) -> float:
    """The processor seconds at a moment, as if they had come evenly from look to look."""
    for (t0, c0), (t1, c1) in pairwise(seen):
        if at_s <= t1:
            return c0 + (c1 - c0) * max(at_s - t0, 0.0) / (t1 - t0)
    return seen[-1][1]


def _environ(path: Path) -> dict[str, str]:
    # What is installed has its bytecode.
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    kept = {n: v for n, v in os.environ.items() if n not in left_out}
    return {**kept, **THREADS, **QUIET, "PYTHONPATH": str(path)}
