"""A run's engines and models: who has seen which lives, and what models say of the engines kept apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from strategies import Array

from laconic.device_sim.scenario import keeping
from laconic.device_sim.scenario.examples import Examples, Part, examples_of
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.sweep import Run
from laconic.errors import ConfigError
from laconic.runtime import Trainer
from laconic.schema import Vector


@dataclass(frozen=True)
class Operator:
    """Who runs engines of a kind, and has seen some of that kind fail."""

    name: str
    seen: list[int]
    """Lives in cycles, of the engines that its own model has learnt from."""
    predicted: list[Array]
    """What its own model says of each engine that is to be maintained (`strategies.by_prediction`)."""
    rmse: float
    """Of its own model, in cycles, on C-MAPSS' test engines."""


@dataclass(frozen=True)
class Fleet:
    """All operators, and the engines that they run: those of which nobody has learnt."""

    operators: list[Operator]
    lives: list[int]
    predicted: dict[str, list[Array]]
    """By model, `federated` and `pooled`: as an operator's own."""
    rmse: dict[str, float]


def fleet_of(scenario: Scenario, run: Run) -> Fleet:
    """The fleet of a run of that scenario. Raises `ConfigError` for scenarios that keep no engine apart."""
    s = scenario.settings
    if s.data.source != "cmapss" or s.data.cmapss.stride != 1 or not s.data.own_held_out:
        raise ConfigError(
            "scenario", value=s.name, limit="cmapss, every window (stride = 1), engines kept (own_held_out)"
        )
    names = [row.name for row in run.result.devices]
    examples = examples_of(s.data, len(names), s.seed, scenario.folder)
    window, unit = s.data.cmapss.window, s.data.cmapss.unit_cycles
    kept = keeping.read(run.folder)
    speaker = _Speaker(Trainer(kept.bundle), window, unit)
    engines = [e for part in examples.own for e in _engines(part)]
    shared = {name: kept.weights[name] for name in (keeping.FEDERATED, keeping.POOLED)}
    return Fleet(
        [
            Operator(
                name,
                [_life(e, window) for e in _engines(part)],
                [speaker.says(kept.weights[f"alone/{name}"], e) for e in engines],
                speaker.rmse(kept.weights[f"alone/{name}"], examples),
            )
            for name, part in zip(names, examples.devices, strict=True)
        ],
        [_life(e, window) for e in engines],
        {name: [speaker.says(weights, e) for e in engines] for name, weights in shared.items()},
        {name: speaker.rmse(weights, examples) for name, weights in shared.items()},
    )


@dataclass(frozen=True)
class _Speaker:
    trainer: Trainer
    window: int
    unit: float

    def says(self, weights: Vector, engine: Part) -> Array:
        """Cycles left after each cycle of an engine's life; NaN until there is a whole window."""
        quiet = np.full(self.window - 1, np.nan)
        return np.concatenate([quiet, self._answers(weights, engine.x)])

    def rmse(self, weights: Vector, examples: Examples) -> float:
        off = self._answers(weights, examples.held_out.x) - self.unit * examples.held_out.y
        return math.sqrt(float(np.mean(np.square(off))))

    def _answers(self, weights: Vector, x: Array) -> Array:
        found = self.trainer.predict(weights, x)
        assert isinstance(found, np.ndarray)
        return self.unit * found.reshape(len(x)).astype(np.float64)


def _engines(part: Part) -> list[Part]:
    """One part for each engine: the window in which it fails has nothing left, and is its last."""
    ends = np.flatnonzero(part.y == 0) + 1
    return [part.at(np.arange(a, b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _life(engine: Part, window: int) -> int:
    return len(engine.y) + window - 1


def lives_of(operators: Sequence[Operator]) -> list[int]:
    """All lives that operators have seen."""
    return [life for o in operators for life in o.seen]
