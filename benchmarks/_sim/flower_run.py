"""Runs an app in Flower's simulation and prints one JSON line: when each round was scored, and the scores.

Usage: flower_run.py MODULE SETTINGS, in Flower's environment; SETTINGS is a JSON object.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation


def main(module: str, settings: dict[str, Any]) -> None:
    """All rounds; times are of the machine's monotonic clock."""
    app = importlib.import_module(module)
    folder = Path(settings["folder"])
    found: dict[str, list[float]] = {"at_s": [], "loss": [], "accuracy": []}
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        score = app.scorer(folder)

        def told(round: int, arrays: ArrayRecord) -> MetricRecord:
            loss, accuracy = score(arrays.to_numpy_ndarrays())
            for name, value in (("at_s", time.monotonic()), ("loss", loss), ("accuracy", accuracy)):
                found[name].append(value)
            return MetricRecord({"loss": loss, "accuracy": accuracy})

        config = ("folder", "samples", "batch_size", "learning_rate")
        # By a minimum and not a share: rounding cannot take one away.
        strategy = FedAvg(
            fraction_train=1e-9,
            min_train_nodes=settings["cohort"],
            fraction_evaluate=0.0,
            min_available_nodes=settings["clients"],
        )
        strategy.start(
            grid,
            ArrayRecord(app.initial(folder)),
            num_rounds=settings["rounds"],
            train_config=ConfigRecord({name: settings[name] for name in config}),
            evaluate_fn=told,
        )

    run_simulation(
        server,
        app.app,
        num_supernodes=settings["clients"],
        backend_config={
            "init_args": {"num_cpus": settings["cores"], "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    if len(found["at_s"]) != settings["rounds"] + 1:
        raise SystemExit(f"{len(found['at_s']) - 1} rounds of {settings['rounds']} were scored")
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    main(sys.argv[1], json.loads(sys.argv[2]))
