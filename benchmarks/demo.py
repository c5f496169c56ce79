"""The whole demonstration: accuracy, bytes and time against uncompressed FedAvg, memory of a device."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import psutil
from _result import at_least, at_most, emit

FOREIGN = ("onnx", "sklearn", "amqtt", "matplotlib", "rich", "scipy", "torch")


def run_demo(seed: int, broker: str | None) -> dict[str, Any]:
    """One default demonstration: its result, wall time, and the largest device process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "laconic.cli", "demo", "--json", "--seed", str(seed)]
        command += ["--output", folder, *(["--broker", broker] if broker else [])]
        began = time.perf_counter()
        # The base install: the extra `native`, which the environment of benchmarks has, takes 90 MB more.
        env = os.environ | {"LACONIC_NATIVE": "0"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        largest = [0]
        watcher = threading.Thread(target=_watch, args=(process.pid, largest), daemon=True)
        watcher.start()
        output, _ = process.communicate()
        seconds = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"the demonstration ended with code {process.returncode}")
    result = json.loads(output)
    keys = ("accuracy", "accuracy_fedavg", "accuracy_alone", "accuracy_pooled", "bytes", "bytes_fedavg")
    found = {key: result[key] for key in (*keys, "ratio", "joules", "joules_fedavg", "rounds", "broker")}
    return {"seed": seed, **found, "wall_seconds": seconds, "device_resident_bytes": largest[0]}


def _watch(pid: int, largest: list[int]) -> None:
    """The largest resident memory that any device's process ever has."""
    while psutil.pid_exists(pid):
        try:
            for child in psutil.Process(pid).children():
                if "device" in child.cmdline():
                    largest[0] = max(largest[0], child.memory_info().rss)
        except psutil.Error:
            pass
        time.sleep(0.1)


def foreign_imports() -> list[str]:
    """What a device process imports beyond the base install."""
    imports = "import sys, laconic.cli, laconic.edge_sdk.daemon"
    code = f"{imports}\nprint(*[m for m in {FOREIGN} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def main() -> int:
    """Three seeds on mosquitto (where it is installed), one on the embedded broker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    runs = [run_demo(seed, None) for seed in range(options.seeds)]
    embedded = run_demo(0, "embedded")
    accuracy = statistics.mean(r["accuracy"] for r in runs)
    fedavg = statistics.mean(r["accuracy_fedavg"] for r in runs)
    foreign = foreign_imports()
    results = {
        "runs": runs,
        "embedded": embedded,
        "mean_accuracy": accuracy,
        "mean_accuracy_fedavg": fedavg,
        "foreign_imports": foreign,
    }
    everything = [*runs, embedded]
    bars = [
        at_most("points of accuracy below uncompressed FedAvg, mean", 100 * (fedavg - accuracy), 1.0),
        at_least("accuracy after the default rounds, mean", accuracy, 0.90),
        at_least("accuracy after the default rounds, worst seed", min(r["accuracy"] for r in runs), 0.90),
        at_least("bytes of uncompressed FedAvg / bytes, worst seed", min(r["ratio"] for r in everything), 30),
        at_most("seconds of the default demo, slowest", max(r["wall_seconds"] for r in runs), 90),
        at_most("seconds of the default demo, embedded broker", embedded["wall_seconds"], 90),
        at_most(
            "MB resident in a device process, largest",
            max(r["device_resident_bytes"] for r in everything) / 1e6,
            150,
        ),
        at_most("modules a device imports beyond the base install", len(foreign), 0),
    ]
    return emit("demo", results, bars)


if __name__ == "__main__":
    sys.exit(main())
