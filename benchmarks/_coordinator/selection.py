"""Selection: what it costs a skewed fleet to learn, by strategy, and how evenly its devices are asked.

The real engines in `laconic.device_sim.world`, joules by the device's own model of power; only processor
speeds and how data is spread are invented.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, as_completed
from itertools import product as combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from _codec.data import Indices, Labels
from _result import Bar, at_most

from _coordinator import softmax
from laconic.compression import PRESETS
from laconic.coordinator.campaign import Campaign
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.rounds import Plan
from laconic.coordinator.selection import SelectionSection, SelectionSettings, selection_of
from laconic.device_sim.world import Connection, Speed, World
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.power import ModelledPower
from laconic.protocol.messages import Training
from laconic.transport.link import WireBytes

DEVICES, ASKED, ANSWERS = 100, 1.3, 10
CONCENTRATION = 0.3
"""Of the Dirichlet distribution from which a device's shares of the classes are drawn."""
SIZE_SPREAD, SPEED_SPREAD = 0.8, 0.8
"""Of the logarithms of sizes and of seconds for a sample, from device to device."""
SAMPLE_S = 0.5
EPOCHS, RATE = 5, 0.05
TARGET = 0.9
ROUNDS = 600
SEEDS = (0, 1, 2)
WAITING = 50
UNIFORM, OORT = "uniform", "oort"


def _settings(**table: Any) -> SelectionSettings:
    return selection_of(SelectionSection(**table))


STRATEGIES: Mapping[str, SelectionSettings] = MappingProxyType(
    {
        UNIFORM: _settings(),
        "uniform, by name": _settings(most_rounds_waiting=WAITING),
        "stratified": _settings(strategy="stratified", most_rounds_waiting=WAITING),
        OORT: _settings(strategy="oort", most_rounds_waiting=WAITING),
        "oort, at any price": _settings(
            strategy="oort", most_rounds_waiting=WAITING, joules_exponent=0.0, bytes_exponent=0.0
        ),
    }
)
_FIGURES = ("rounds", "hours", "joules", "megabytes", "jain")


def measure(pool: Executor, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Rounds, hours, joules and bytes to the target accuracy, and Jain's index, by strategy."""
    waiting = [pool.submit(played, name, seed) for name, seed in combinations(STRATEGIES, seeds)]
    runs = []
    for done in as_completed(waiting):
        runs.append(done.result())
        r = runs[-1]
        print(
            f"bench: selection, {r['strategy']}: {r['rounds']} rounds, {r['joules']:.0f} J", file=sys.stderr
        )
    return summary(runs)


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over seeds, and joules and bytes in those of `uniform`: geometric means, seed by seed."""
    runs = sorted(runs, key=lambda r: (list(STRATEGIES).index(r["strategy"]), r["seed"]))
    by_strategy = {name: [r for r in runs if r["strategy"] == name] for name in STRATEGIES}
    usual = {r["seed"]: r for r in by_strategy[UNIFORM]}
    return {
        "devices": DEVICES,
        "answers": ANSWERS,
        "target_accuracy": TARGET,
        "most_rounds_waiting": WAITING,
        "seeds": len(usual),
        "median": {
            name: {figure: statistics.median(r[figure] for r in made) for figure in _FIGURES}
            for name, made in by_strategy.items()
        },
        "ratio": {
            name: {
                figure: statistics.geometric_mean(r[figure] / usual[r["seed"]][figure] for r in made)
                for figure in ("joules", "megabytes")
            }
            for name, made in by_strategy.items()
        },
        "runs": runs,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """Choosing by value for cost must not cost more than chance."""
    return [
        at_most(
            f"selection, oort: joules to {TARGET:.0%} in times of uniform",
            found["ratio"][OORT]["joules"],
            1.0,
        )
    ]


def played(strategy: str, seed: int) -> dict[str, Any]:
    """One run to the target accuracy, or through `ROUNDS`."""
    world, rng = World(), np.random.default_rng([seed, 7])
    chosen_by = STRATEGIES[strategy]
    campaign = Campaign(
        fleet=f"bench-{seed}",
        cohort="default",
        plan=Plan(ROUNDS, DEVICES, ANSWERS, 600.0, target_reports=ANSWERS, over_selection=ASKED),
        until_accuracy=TARGET,
        training=Training(epochs=EPOCHS, batch_size=8, learning_rate=RATE),
        codec=PRESETS["dense8"],
        delta_codec=PRESETS["dense8"],
        selection=chosen_by,
        targeted=chosen_by.by_name,
    )
    world.add(
        "coordinator",
        lambda: CoordinatorEngine([(campaign, softmax.subject())]),
        connection=Connection(0.01, 1e7, 1e7),
        speed=Speed(0.05),
    )
    train = softmax.data().train
    pace = SAMPLE_S * np.exp(SPEED_SPREAD * rng.standard_normal(DEVICES))
    sensors = []
    for i, where in enumerate(_dealt(train.y, rng)):
        name, learner = f"d{i}", softmax.Softmax(train.at(where))
        power = ModelledPower(
            "rpi_zero2w", "wifi_2012", lambda name=name: WireBytes(*world.bytes_of(name), measured=True)
        )
        sensors.append(power)
        world.add(
            name,
            lambda name=name, learner=learner, power=power: DeviceEngine(
                DeviceSettings(name), learner, power
            ),
            speed=Speed(0.0, float(pace[i])),
        )

    def finished() -> bool:
        node = world.node("coordinator")
        return isinstance(node, CoordinatorEngine) and node.finished

    world.run(1e7, stop=finished)
    notes = [n for _, h, n in world.notes if h == "coordinator"]
    readings = [s.read(world.now) for s in sensors]
    scores = [float(str(n.fields["accuracy"])) for n in notes if n.kind == "version"]
    return {
        "strategy": strategy,
        "seed": seed,
        "reached": scores[-1] >= TARGET,
        "rounds": sum(n.kind == "closed" for n in notes),
        "hours": world.now / 3600,
        "joules": sum(r.joules_compute + r.joules_radio for r in readings),
        "compute_joules": sum(r.joules_compute for r in readings),
        "megabytes": sum(r.bytes_up + r.bytes_down for r in readings) / 1e6,
        "jain": [n.fields["fairness"] for n in notes if n.kind == "opened"][-1],
    }


def _dealt(labels: Labels, rng: np.random.Generator) -> list[Indices]:
    """Which samples each device has: sizes log-normal, classes by a Dirichlet distribution."""
    classes = int(labels.max()) + 1
    waiting = [list(rng.permutation(np.flatnonzero(labels == c))) for c in range(classes)]
    size = np.exp(SIZE_SPREAD * rng.standard_normal(DEVICES))
    counts = np.maximum(2, np.floor(size / size.sum() * len(labels) * 0.95)).astype(int)
    shares = rng.dirichlet([CONCENTRATION] * classes, DEVICES)
    dealt = []
    for device in rng.permutation(DEVICES):
        mine: list[int] = []
        for _ in range(counts[device]):
            odds = np.where([bool(w) for w in waiting], shares[device] + 1e-9, 0)
            mine.append(int(waiting[int(rng.choice(classes, p=odds / odds.sum()))].pop()))
        dealt.append(np.array(mine, np.int64))
    return dealt
