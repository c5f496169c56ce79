"""Where the demonstration's fleets run: their names, their files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laconic.demo.cleanup import Traces
from laconic.demo.data import Split
from laconic.demo.settings import Settings


@dataclass(frozen=True)
class Site:
    """Where fleets run."""

    folder: Path
    bundle: Path
    broker: str
    sockets: Path
    """A folder of a short path, for the coordinators' control sockets: those may have 107 bytes (unix(7))."""
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


def write_files(site: Site, name: str, split: Split, settings: Settings) -> None:
    """The data and configuration files of the run `name`: all that its processes are given."""
    folder, cohort, names = site.folder / name, site.cohort(name), site.devices(len(split.devices))
    folder.mkdir(parents=True, exist_ok=True)
    split.held_out.save(folder / "held-out.npz")
    bundle, s = str(site.bundle), settings
    (folder / "coordinator.toml").write_text(
        _toml(
            {"bundle": bundle, "fleet": cohort, "cohort": cohort, "held_out": "held-out.npz"},
            broker={"url": site.broker},
            control={"socket": str(site.sockets / f"{name}.sock")},
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
            gate={
                "mode": s.gate_mode,
                "threshold": s.gate_threshold,
                "loss_factor": s.gate_loss_factor,
                "force_after": s.gate_force_after,
            },
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
                    # Not this machine's: what a process takes here says little of a board.
                    "source": "model",
                    "board": s.board,
                    "radio": s.radio,
                    "battery_wh": s.battery_wh,
                    "charge": round(float(charge), 3),
                },
            )
        )


def _toml(top: dict[str, Any], **sections: dict[str, Any]) -> str:
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
