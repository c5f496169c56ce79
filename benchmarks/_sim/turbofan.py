"""Turbofan engines over operators: four ways of maintenance with the models of three runs.

docs/experiments/turbofan.md has the tables. Takes the folder `cmapss` of the shared data (LACONIC_DATA).
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from _result import Bar, at_least, at_most

from laconic.device_sim import Scenario
from laconic.device_sim.scenario.sweep import Run, run_all

ROOT: Final = Path(__file__).parents[2]
EXAMPLE: Final = ROOT / "examples" / "turbofan"
CMAPSS: Final = (ROOT / (os.environ.get("LACONIC_DATA") or "../shared/data") / "cmapss").resolve()
SEEDS: Final = (0, 1, 2)
UNCOMPRESSED: Final = {
    "coordinator.compression": {"up": "exact", "down": "exact"},
    "baselines": {},
    "record": {},
}
GENTLE: Final = {"coordinator.training.learning_rate": 0.02, "end.rounds": 20}
"""A fifth of the step, a quarter of the rounds: whether lone models suffer from a recipe made for a fleet."""
PUBLISHED_RMSE: Final = 18.45
"""A convolutional network on FD001: Babu, Zhao, Li, DASFAA 2016; later networks reach 12 to 17."""


def measure() -> dict[str, Any]:
    """The example's study, what its runs have sent and spent, and the same with nothing compressed."""
    sys.path.append(str(EXAMPLE))
    from comparing import Setting
    from study import run

    scenario = Scenario.read(ROOT / "examples" / "scenarios" / "turbofan.toml")
    scenario = scenario.replaced({"data.path": str(CMAPSS)})
    unit = scenario.settings.data.cmapss.unit_cycles
    with tempfile.TemporaryDirectory() as name:
        began = time.process_time()
        runs = run_all(scenario, Path(name) / "runs", sweep={"seed": SEEDS}, threads=2)
        seconds = time.process_time() - began
        study = run(scenario, runs, Path("turbofan"), Setting())
        plain = scenario.replaced(UNCOMPRESSED)
        exact = run_all(plain, Path(name) / "exact", sweep={"seed": SEEDS}, threads=2)
        pictures(study)
        found_gently = gently(scenario, Path(name) / "gentle")
    return {
        "study": _told(study.table()),
        "sent": [_sent(r) for r in runs],
        "uncompressed": {
            "rmse": [math.sqrt(r.result.totals.loss or 0.0) * unit for r in exact],
            "sent": [_sent(r) for r in exact],
        },
        "gentle": found_gently,
        "processor_seconds_a_run": seconds / len(runs),
    }


def gently(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """The study's main table, and errors, where all train with smaller steps and for fewer rounds."""
    from comparing import Setting
    from study import run

    scenario = scenario.replaced(GENTLE)
    found = run(scenario, run_all(scenario, folder, sweep={"seed": SEEDS}, threads=2), folder, Setting())
    return {"main": found.table()["main"], "rmse": found.rmse}


def bars(found: dict[str, Any]) -> list[Bar]:
    """Networks as good as published ones, and the order of the strategies that the prototype tells of."""
    study = found["study"]
    profit = {name: _mean(of["profit"]) for name, of in study["main"].items()}
    return [
        at_most("turbofan: RMSE of the pooled model, cycles", _mean(study["rmse"]["pooled"]), PUBLISHED_RMSE),
        at_most(
            "turbofan: RMSE of the federated model over the pooled one's",
            _mean(study["rmse"]["federated"]) / _mean(study["rmse"]["pooled"]),
            1.15,
        ),
        *(
            at_least(f"turbofan: what {better} earns more than {worse}", profit[better] - profit[worse], 0.0)
            for better, worse in (
                ("predictive, federated", "predictive, alone"),
                ("predictive, alone", "preventive"),
                ("preventive", "run to failure"),
            )
        ),
    ]


def pictures(study: Any) -> None:
    """The page's picture."""
    from picture import draw

    draw(study, ROOT / "docs" / "experiments" / "turbofan.png")


def _told(study: dict[str, Any]) -> dict[str, Any]:
    """A study's table, of other prices and margins the profits and the shares that failed."""
    for grid in ("by_ratio", "by_margin"):
        study[grid] = {
            str(key): {
                name: {"failed": found["failed"], "profit": found["profit"]} for name, found in of.items()
            }
            for key, of in study[grid].items()
        }
    return study


def _sent(run: Run) -> dict[str, float]:
    t = run.result.totals
    return {
        "bytes_up": t.bytes_up,
        "bytes_down": t.bytes_down,
        "ip_bytes": t.ip_bytes_up + t.ip_bytes_down,
        "joules": t.joules,
        "work_joules": t.useful_j + t.silent_j + t.wasted_j + t.upkeep_j,
        "compute_joules": t.joules_by_part["compute"],
        "hours": t.hours,
        "committed": t.committed,
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
