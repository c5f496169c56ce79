"""What is heard of a federated run while it goes on, and what it comes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from laconic.demo.data import CLASSES, Split
from laconic.demo.results import Bytes, DeviceResult, FleetResult, RoundPoint

Line = dict[str, Any]
"""One note of a process."""


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
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
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
                self.versions.append({**line, "seconds": self.clock() - self.began})
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


def result_of(progress: Progress, split: Split) -> FleetResult:
    """The finished run in figures."""
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
        model=progress.versions[-1]["model"],
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
