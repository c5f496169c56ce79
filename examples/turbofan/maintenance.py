"""Four ways to maintain turbofan engines: what each costs, with the models that a scenario has trained.

`python maintenance.py` runs examples/scenarios/turbofan.toml with three seeds, or takes their results if they
are there, lets twenty operators run engines for a long time, and prints what became of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from comparing import BOUNDS, STRATEGIES, Setting
from study import Study, run

from laconic import tables
from laconic.device_sim.scenario.display import display
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.sweep import run_all
from laconic.errors import LaconicError

SCENARIO = Path(__file__).parents[1] / "scenarios" / "turbofan.toml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", type=Path, nargs="?", default=SCENARIO)
    parser.add_argument("--output", type=Path, help="folder of the runs (default: laconic-sim/NAME)")
    parser.add_argument("--data", type=Path, help="folder of C-MAPSS, instead of the scenario's")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], help="of the runs (default: 0,1,2)")
    parser.add_argument("--margin", type=float, help="cycles at which a model has an engine serviced")
    parser.add_argument("--failure", type=float, help="dollars for a failure (default: 60,000)")
    parser.add_argument("--json", action="store_true", help="print JSON, and draw nothing")
    options = parser.parse_args()
    try:
        study = _study(options)
    except LaconicError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(study.table(), indent=2))
        return 0
    show(study)
    _draw(study, study.folder / "maintenance.png")
    return 0


def _seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split(",")]


def _study(options: argparse.Namespace) -> Study:
    scenario = Scenario.read(options.scenario)
    if options.data:
        scenario = scenario.replaced({"data.path": str(options.data.resolve())})
    output = options.output or Path("laconic-sim") / scenario.settings.name
    with display(watched=sys.stderr.isatty() and not options.json) as view:
        threads = os.cpu_count() or 1
        runs = run_all(scenario, output, sweep={"seed": options.seeds}, threads=threads, begin=view.begin)
    setting = Setting()
    if options.margin is not None:
        setting = replace(setting, margin=options.margin)
    if options.failure is not None:
        setting = replace(setting, prices=replace(setting.prices, failure=options.failure))
    return run(scenario, runs, output, setting)


def show(study: Study) -> None:
    """Print the tables: means over the seeds, with the least and the most."""
    p, seeds = study.setting.prices, len(study.seeds)
    rows = [
        (
            name,
            _range(found.failed, 100),
            _range(found.wasted),
            _range(found.cost, 1e-3),
            _range(found.profit, 1e-3),
            _range(found.worst, 1e-3),
        )
        for name, found in study.main.items()
    ]
    head = ("strategy", "failed %", "wasted cycles", "cost k$", "profit k$", "worst operator k$")
    tables.show(
        f"{seeds} seeds; a failure costs {p.failure:,.0f} and a service {p.service:,.0f} dollars; "
        f"margin {study.setting.margin:g} cycles; dollars for 1,000 cycles of an engine's place",
        head,
        rows,
        right=range(1, 6),
    )
    for title, grid, unit in (
        ("profit k$, by how many services a failure costs", study.by_ratio, "x"),
        ("profit k$, by the margin in cycles", study.by_margin, ""),
    ):
        names = [*STRATEGIES, *BOUNDS]
        tables.show(
            title,
            ("strategy", *(f"{key:g}{unit}" for key in grid)),
            [(n, *(_range(found[n].profit, 1e-3) for found in grid.values())) for n in names],
            right=range(1, len(grid) + 1),
        )
    tables.show(
        "root mean square error on C-MAPSS' test engines, cycles",
        ("model", "RMSE"),
        [(name, _range(values)) for name, values in study.rmse.items()],
        right=(1,),
    )


def _range(values: Sequence[float], factor: float = 1.0) -> str:
    scaled = [v * factor for v in values]
    digits = 0 if max(map(abs, scaled)) >= 10 else 1
    mean, least, most = (f"{v:.{digits}f}" for v in (sum(scaled) / len(scaled), min(scaled), max(scaled)))
    return mean if least == most else f"{mean} ({least} to {most})"


def _draw(study: Study, path: Path) -> None:
    try:
        from picture import draw
    except ModuleNotFoundError as e:
        print(f"no picture: {e.name} is not installed", file=sys.stderr)
        return
    draw(study, path)
    print(f"picture: {path}")


if __name__ == "__main__":
    sys.exit(main())
