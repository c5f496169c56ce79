"""The demonstration's fleets twice: over MQTT as real processes, and in the simulator's world."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from _result import Bar, at_most

from laconic.demo.broker import start_broker
from laconic.demo.data import split_digits
from laconic.demo.fleet import run_fleet
from laconic.demo.processes import Children, children
from laconic.demo.results import FleetResult
from laconic.demo.settings import Settings, uncompressed
from laconic.demo.simulated import simulate_fleet
from laconic.demo.site import Site
from laconic.training import prepare
from laconic.training.models import digits_cnn

SEEDS = 3
RUNS = [("laconic", devices, seed) for devices in (10, 20) for seed in range(SEEDS)] + [("fedavg", 20, 0)]
"""Settings, devices, seed."""
MOST = 0.01
"""Of the bytes at a socket."""


def measure() -> dict[str, Any]:
    """Every run both ways."""
    return {"runs": [compare(*run) for run in RUNS]}


def compare(name: str, devices: int, seed: int) -> dict[str, Any]:
    """One fleet over mosquitto, and in the world."""
    settings = Settings()
    split = split_digits(devices, skew=settings.skew, seed=seed)
    settings = settings if name == "laconic" else uncompressed(settings)
    with tempfile.TemporaryDirectory(prefix="laconic-") as folder, children(Path(folder) / "logs") as running:
        here = Path(folder)
        bundle = here / "digits.bundle"
        bundle.write_bytes(prepare(digits_cnn(seed)))
        began = time.perf_counter()
        real = _over_mqtt(name, here, bundle, split, settings, running)
        met = time.perf_counter()
        site = Site(here / "simulated", bundle, "mqtt://127.0.0.1", here)
        simulated = simulate_fleet(name, site, split, settings, lambda progress: None)
        done = time.perf_counter()
    return {
        "settings": name,
        "devices": devices,
        "seed": seed,
        "model": real.model,
        "model_simulated": simulated.model,
        "committed": sum(d.committed for d in real.devices),
        "committed_simulated": sum(d.committed for d in simulated.devices),
        "bytes": _bytes(real),
        "bytes_simulated": _bytes(simulated),
        "largest_error_total": max(
            _error(ours, theirs)
            for ours, theirs in zip(_bytes(simulated).values(), _bytes(real).values(), strict=True)
        ),
        "largest_error_device": max(
            _error(getattr(s, way), getattr(r, way))
            for s, r in zip(simulated.devices, real.devices, strict=True)
            for way in ("bytes_up", "bytes_down")
        ),
        "wall_seconds": met - began,
        "wall_seconds_simulated": done - met,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """The same model, and the same bytes at every socket to within one per cent."""
    runs = found["runs"]
    different = sum(run["model"] != run["model_simulated"] for run in runs)
    return [
        at_most(f"real: of {len(runs)} runs, simulated ones that end with another model", different, 0),
        at_most(
            "real: error of bytes, devices together and coordinator, each way",
            max(r["largest_error_total"] for r in runs),
            MOST,
        ),
        at_most(
            "real: error of bytes, worst device, each way",
            max(r["largest_error_device"] for r in runs),
            MOST,
        ),
    ]


def _over_mqtt(
    name: str, folder: Path, bundle: Path, split: Any, settings: Settings, running: Children
) -> FleetResult:
    served = start_broker(running, folder, None)
    site = Site(folder / "real", bundle, served.url, folder)
    result = run_fleet(name, site, split, settings, running, lambda progress: None)
    running.end()
    return result


def _bytes(run: FleetResult) -> dict[str, int]:
    devices, coordinator = run.bytes, run.coordinator_bytes
    return {
        "devices_up": devices.up,
        "devices_down": devices.down,
        "coordinator_up": coordinator.up,
        "coordinator_down": coordinator.down,
    }


def _error(ours: int, theirs: int) -> float:
    return abs(ours - theirs) / theirs
