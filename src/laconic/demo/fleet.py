"""One federated run: a coordinator and devices as processes, followed to their end."""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Callable
from pathlib import Path

from laconic.demo.data import Split
from laconic.demo.processes import Children
from laconic.demo.results import FleetResult
from laconic.demo.settings import Settings
from laconic.demo.site import Site, write_files
from laconic.demo.watch import Line, Progress, Watch, result_of
from laconic.errors import TransportError

_DEVICES_PER_PROCESS_ABOVE = 16
_DEVICES_PER_PROCESS = 8
_FAREWELL_S = 30.0


def run_fleet(
    name: str,
    site: Site,
    split: Split,
    settings: Settings,
    children: Children,
    show: Callable[[Progress], None],
) -> FleetResult:
    """Run a coordinator and `len(split.devices)` devices to the end of their rounds.

    Raises `TransportError` when a process ends early or nothing moves any more.
    """
    names = site.devices(len(split.devices))
    folder = site.folder / name
    write_files(site, name, split, settings)
    progress = Progress(name, settings.rounds, {n: Watch() for n in names})
    lines: queue.Queue[Line] = queue.Queue()
    _start(name, folder, names, children, lambda text: lines.put(_parse(text)))
    try:
        _follow(progress, lines, children, settings, show)
    finally:
        children.end([n for n in _process_names(name, names) if n != f"{name}-coordinator"])
        children.end([f"{name}-coordinator"])
    while progress.coordinator_wire is None or any(w.wire is None for w in progress.devices.values()):
        try:
            progress.hear(lines.get(timeout=5))
        except queue.Empty:
            raise TransportError("a process has ended without a last word", remedy=f"see {folder}") from None
    return result_of(progress, split)


def _follow(
    progress: Progress,
    lines: queue.Queue[Line],
    children: Children,
    settings: Settings,
    show: Callable[[Progress], None],
) -> None:
    """Until the rounds are over and every device holds the last version."""
    quiet_since = time.monotonic()
    farewell: float | None = None
    while True:
        try:
            progress.hear(lines.get(timeout=0.1))
            quiet_since = time.monotonic()
            if lines.qsize() < 50:
                show(progress)
        except queue.Empty:
            children.check()
            show(progress)
        now = time.monotonic()
        if now - quiet_since > settings.deadline_s + _FAREWELL_S:
            raise TransportError(f"nothing has happened for {now - quiet_since:.0f} s in run {progress.name}")
        if progress.finished:
            farewell = farewell or now
            newest = progress.versions[-1]["version"]
            if all(w.version == newest for w in progress.devices.values()) or now - farewell > _FAREWELL_S:
                return


def _start(
    name: str, folder: Path, names: list[str], children: Children, on_line: Callable[[str], None]
) -> None:
    laconic = [sys.executable, "-m", "laconic.cli"]
    config = str(folder / "coordinator.toml")
    children.start(f"{name}-coordinator", [*laconic, "coordinator", "--json", "--config", config], on_line)
    for process, group in zip(_process_names(name, names)[1:], _groups(names), strict=True):
        configs = [argument for n in group for argument in ("--config", str(folder / f"{n}.toml"))]
        children.start(process, [*laconic, "device", "--json", *configs], on_line)


def _groups(names: list[str]) -> list[list[str]]:
    size = 1 if len(names) <= _DEVICES_PER_PROCESS_ABOVE else _DEVICES_PER_PROCESS
    return [names[i : i + size] for i in range(0, len(names), size)]


def _process_names(name: str, names: list[str]) -> list[str]:
    return [f"{name}-coordinator", *(f"{name}-devices-{i:02d}" for i in range(len(_groups(names))))]


def _parse(text: str) -> Line:
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        line = None
    if isinstance(line, dict) and "who" in line and "kind" in line:
        return line
    return {"who": "", "kind": "noise", "text": text}
