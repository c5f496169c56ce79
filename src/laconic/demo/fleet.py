"""One federated run: a coordinator and devices as processes, and what their notes tell."""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from laconic.demo.cleanup import Traces
from laconic.demo.data import CLASSES, Split
from laconic.demo.processes import Children
from laconic.demo.results import Bytes, DeviceResult, FleetResult, RoundPoint
from laconic.demo.settings import Settings
from laconic.errors import TransportError

_DEVICES_PER_PROCESS_ABOVE = 16
_DEVICES_PER_PROCESS = 8
_FAREWELL_S = 30.0

Line = dict[str, Any]


@dataclass
class Watch:
    """What has been heard of one device so far."""

    charge: float | None = None
    charge_begin: float | None = None
    committed: int = 0
    silent: int = 0
    state: str = "starting"
    version: int = 0
    told: list[Line] = field(default_factory=list)
    """Telemetry, one for each round that the device answered."""
    wire: Line | None = None
    """Its process's last word on bytes and joules."""


@dataclass
class Progress:
    """The run as it goes: what the display shows."""

    name: str
    rounds: int
    devices: dict[str, Watch]
    round: int = 0
    points: list[RoundPoint] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    versions: list[Line] = field(default_factory=list)
    finished: bool = False
    coordinator_wire: Line | None = None

    def bytes_now(self) -> Bytes:
        """Bytes of all devices, as last told."""
        last = [w.told[-1] for w in self.devices.values() if w.told]
        return Bytes(sum(t["bytes_up"] for t in last), sum(t["bytes_down"] for t in last))

    def hear(self, line: Line) -> None:
        """Take one note of a process."""
        who, kind = line["who"], line["kind"]
        if who in self.devices:
            self._hear_device(self.devices[who], kind, line)
            return
        watch = self.devices.get(str(line.get("device")))
        match kind:
            case "opened":
                self.round = line["round"]
                for w in self.devices.values():
                    w.state = "asked"
            case "committed" if watch is not None:
                watch.committed += 1
                watch.state = f"sent {line['frame_bytes']:,} B"
            case "skipped" if watch is not None:
                watch.silent += 1
                watch.state = f"silent: {line['why']}"
            case "telemetry" if watch is not None:
                watch.told.append(line)
                watch.charge = line["charge"]
            case "state" if watch is not None:
                watch.state = "here" if line["online"] else "gone"
                if watch.charge_begin is None:
                    watch.charge_begin = watch.charge = line["charge"]
            case "version":
                self.versions.append({**line, "seconds": time.monotonic() - self.began})
            case "finished":
                self.finished = True
            case "stopped":
                self.coordinator_wire = line

    def _hear_device(self, watch: Watch, kind: str, line: Line) -> None:
        match kind:
            case "model":
                watch.version = line["version"]
            case "stopped":
                watch.wire = line


@dataclass(frozen=True)
class Site:
    """Where fleets run."""

    folder: Path
    bundle: Path
    broker: str
    suffix: str = ""
    """Keeps the names of several demonstrations on one broker apart."""

    def cohort(self, name: str) -> str:
        """The cohort of the run `name`."""
        return f"{name}{self.suffix}"

    def devices(self, count: int) -> list[str]:
        """The devices' names."""
        return [f"device-{i:02d}{self.suffix}" for i in range(count)]

    def traces(self, name: str, count: int) -> Traces:
        """What the run `name` will have left at the broker."""
        return Traces(self.folder / name / "coordinator.db", self.cohort(name), self.devices(count))


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
    _write_files(folder, site, site.cohort(name), names, split, settings)
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
    return _result(progress, split)


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


def _write_files(
    folder: Path, site: Site, cohort: str, names: list[str], split: Split, settings: Settings
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    split.held_out.save(folder / "held-out.npz")
    bundle, s = str(site.bundle), settings
    (folder / "coordinator.toml").write_text(
        _toml(
            {"bundle": bundle, "fleet": cohort, "cohort": cohort, "held_out": "held-out.npz"},
            broker={"url": site.broker},
            rounds={
                "rounds": s.rounds,
                "min_devices": len(names),
                "min_reports": len(names),
                "deadline_s": s.deadline_s,
            },
            training={
                "epochs": s.epochs,
                "batch_size": s.batch_size,
                "learning_rate": s.learning_rate,
                "learning_rate_decay": s.learning_rate_decay,
            },
            compression={"up": s.up, "down": s.down},
            gate={"mode": s.gate_mode, "threshold": s.gate_threshold, "force_after": s.gate_force_after},
        )
    )
    charges = np.linspace(1.0, 0.55, len(names))
    for device, part, charge in zip(names, split.devices, charges, strict=True):
        part.save(folder / f"{device}.npz")
        (folder / f"{device}.toml").write_text(
            _toml(
                {"name": device, "cohort": cohort, "bundle": bundle, "data": f"{device}.npz", "retry_s": 3},
                broker={"url": site.broker},
                power={
                    "board": s.board,
                    "radio": s.radio,
                    "battery_wh": s.battery_wh,
                    "charge": round(float(charge), 3),
                },
            )
        )


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


def _result(progress: Progress, split: Split) -> FleetResult:
    devices = []
    for (name, watch), part in zip(progress.devices.items(), split.devices, strict=True):
        wire = watch.wire or {}
        devices.append(
            DeviceResult(
                name=name,
                samples=len(part.y),
                main_class=int(np.bincount(part.y, minlength=CLASSES).argmax()),
                committed=watch.committed,
                silent=watch.silent,
                bytes_up=wire["bytes_up"],
                bytes_down=wire["bytes_down"],
                joules_compute=wire["joules_compute"],
                joules_radio=wire["joules_radio"],
                charge_begin=watch.charge_begin or 0.0,
                charge_end=wire["charge"] or 0.0,
            )
        )
    total = Bytes(sum(d.bytes_up for d in devices), sum(d.bytes_down for d in devices))
    coordinator = progress.coordinator_wire or {"bytes_up": 0, "bytes_down": 0}
    return FleetResult(
        name=progress.name,
        points=_points(progress, total),
        devices=devices,
        bytes=total,
        coordinator_bytes=Bytes(coordinator["bytes_up"], coordinator["bytes_down"]),
        seconds=progress.versions[-1]["seconds"],
    )


def _points(progress: Progress, total: Bytes) -> list[RoundPoint]:
    """Accuracy by round; a round in which nobody spoke has made no version and is as good as the last."""
    by_round = {v["round"]: v for v in progress.versions}
    points: list[RoundPoint] = []
    for number in range(progress.rounds + 1):
        v = by_round.get(number)
        if v is None:
            last = points[-1]
            v = {"accuracy": last.accuracy, "loss": last.loss, "updates": 0, "silent": len(progress.devices)}
            v["seconds"] = last.seconds
        # A device tells its bytes once for every round that it answers.
        told = [w.told[min(number, len(w.told)) - 1] for w in progress.devices.values() if w.told]
        up = sum(t["bytes_up"] for t in told) if number else 0
        down = sum(t["bytes_down"] for t in told) if number else 0
        if number == progress.rounds:
            up, down = total.up, total.down
        points.append(
            RoundPoint(number, v["accuracy"], v["loss"], v["updates"], v["silent"], up, down, v["seconds"])
        )
    return points


def _parse(text: str) -> Line:
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        line = None
    if isinstance(line, dict) and "who" in line and "kind" in line:
        return line
    return {"who": "", "kind": "noise", "text": text}


def _toml(top: Line, **sections: Line) -> str:
    """A configuration file. Strings and numbers in JSON's spelling are strings and numbers in TOML's."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in top.items()]
    for section, values in sections.items():
        lines += ["", f"[{section}]"]
        for key, value in values.items():
            if isinstance(value, dict):
                inner = ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items())
                lines.append(f"{key} = {{ {inner} }}")
            else:
                lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"
