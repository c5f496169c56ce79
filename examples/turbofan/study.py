"""The strategies compared in the fleets of several runs, at the prices asked for and at others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from comparing import Outcome, Setting, compare
from operators import Fleet, fleet_of

from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.sweep import Run

RATIOS = (1.0, 2.0, 6.0, 20.0)
"""What a failure costs, in services."""
MARGINS = (0.0, 5.0, 10.0, 20.0, 40.0)


@dataclass(frozen=True)
class Found:
    """A strategy's outcomes, a value for each seed (`comparing.Outcome`)."""

    failed: list[float]
    wasted: list[float]
    cost: list[float]
    profit: list[float]
    worst: list[float]


@dataclass(frozen=True)
class Study:
    """What came of all runs."""

    folder: Path
    seeds: list[int]
    setting: Setting
    main: dict[str, Found]
    by_ratio: dict[float, dict[str, Found]]
    by_margin: dict[float, dict[str, Found]]
    rmse: dict[str, list[float]]
    """In cycles, on the test engines: a value for each seed; `alone`: for each operator of each."""

    def table(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {**asdict(self), "folder": str(self.folder)}


def run(scenario: Scenario, runs: Sequence[Run], folder: Path, setting: Setting) -> Study:
    """Compare the strategies in the fleets of a scenario's runs, which differ in their seeds."""
    seeds = [int(r.result.settings["seed"]) for r in runs]
    fleets = [fleet_of(scenario.replaced({"seed": s}), r) for s, r in zip(seeds, runs, strict=True)]

    def found(at: Setting) -> dict[str, Found]:
        each = [compare(fleet, at, seed=seed) for fleet, seed in zip(fleets, seeds, strict=True)]
        return {name: _found([one[name] for one in each]) for name in each[0]}

    def priced(ratio: float) -> Setting:
        return replace(setting, prices=replace(setting.prices, failure=ratio * setting.prices.service))

    return Study(
        folder,
        seeds,
        setting,
        found(setting),
        {ratio: found(priced(ratio)) for ratio in RATIOS},
        {margin: found(replace(setting, margin=margin)) for margin in MARGINS},
        _rmse(fleets),
    )


def _found(outcomes: Sequence[Outcome]) -> Found:
    return Found(**{f.name: [getattr(o, f.name) for o in outcomes] for f in fields(Found)})


def _rmse(fleets: Sequence[Fleet]) -> dict[str, list[float]]:
    models = {name: [fleet.rmse[name] for fleet in fleets] for name in fleets[0].rmse}
    return models | {"alone": [o.rmse for fleet in fleets for o in fleet.operators]}
