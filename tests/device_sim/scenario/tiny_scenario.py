"""Scenarios that run in a moment: a linear model, a few digits a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from laconic.device_sim import Scenario

PHONES: dict[str, Any] = {
    "name": "phone",
    "count": 3,
    "board": "phone_mid",
    "radio": "lte_2012",
    "speed": {"sample_s": 0.5, "spread": 0.3},
    "connection": {"loss": 0.01, "jitter_s": 0.02, "tls": "mutual"},
    "battery": {"mah": 60, "charge_least": 0.5, "user_w": [0.1, 0.3], "charger_w": 3.0, "begin_hour": 1.0},
    "failures": {"drop_out": 0.2, "away_s": 300.0, "crash": 0.1},
}
PIS: dict[str, Any] = {"name": "pi", "count": 2, "speed": {"sample_s": 0.05}, "connection": {"medium": "ap"}}
TABLE: dict[str, Any] = {
    "name": "tiny",
    "end": {"rounds": 4, "hours": 12},
    "model": {"built_in": "softmax"},
    "data": {"division": "own_class", "samples": 12, "held_out": 0.9},
    "coordinator": {
        "rounds": {"min_devices": 2, "min_reports": 1, "deadline_s": 120.0, "interval_s": 900.0},
        "gate": {"mode": "model", "threshold": 0.3},
    },
    "media": [{"name": "ap", "up_mbps": 5.0, "down_mbps": 5.0}],
    "devices": [PHONES, PIS],
}


def line(folder: Path, devices: int, **more: Any) -> Scenario:
    """A regression without noise, written to a folder: `devices` of 200 examples; `more`: other tables."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    np.savez(folder / "line.npz", x=x, y=(x @ rng.normal(size=4)).astype(np.float32))
    table = {
        "name": "line",
        "model": {"built_in": "linear"},
        "data": {"source": "npz", "path": "line.npz"},
        "devices": [{"name": "pi", "count": devices, "speed": {"sample_s": 0.1}}],
    }
    return Scenario.of(table | more, folder)


def tiny(**values: Any) -> Scenario:
    """The tiny scenario, with values at keys whose dots are written `__`."""
    return Scenario.of(TABLE).replaced({k.replace("__", "."): v for k, v in values.items()})
