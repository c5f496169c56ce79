"""Stragglers under a virtual clock: the time to an accuracy with slow and vanishing devices, and without.

The real engines in `laconic.device_sim.world`; only processor speed and the fate of devices are invented.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field
from itertools import product as combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from _codec.data import deal
from _result import Bar, at_most

from _coordinator import softmax
from laconic.compression import PRESETS
from laconic.coordinator.campaign import Campaign
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.rounds import Plan, buffered
from laconic.coordinator.staleness import Lateness
from laconic.device_sim.world import Connection, Speed, World
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.node import Compute, Effect, Event, Will
from laconic.protocol.messages import Training

DEVICES = 60
SLOW, TIMES_SLOWER = 0.2, 20
VANISHING = 0.1
TRAINING_S, SPREAD = 10.0, 0.1
"""Seconds that an ordinary device trains, and the spread of its logarithm from device to device."""
NOTICED_S, AWAY_S = 90.0, 60.0
"""A broker notices a lost client after 1.5 times its keep-alive of a minute; it is back a minute later."""
SKEW = 0.2
EPOCHS = 5
TARGET = 0.9
MOST_S = 30_000.0
SEEDS = (0, 1, 2, 3, 4)
LIMIT = 1.25

_PLAN = Plan(rounds=2000, min_devices=20, min_reports=10, deadline_s=600.0)
_TARGET, _BUFFER = 30, 10
_FOLD = Lateness(50, 0.5)


@dataclass(frozen=True)
class Mode:
    """How rounds are run."""

    plan: Plan
    lateness: Lateness = field(default_factory=Lateness)


def _over(factor: float) -> Plan:
    return Plan(
        _PLAN.rounds,
        _PLAN.min_devices,
        _PLAN.min_reports,
        _PLAN.deadline_s,
        target_reports=_TARGET,
        over_selection=factor,
    )


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        "wait for all": Mode(_PLAN),
        "over-selection 1.3": Mode(_over(1.3)),
        "over-selection 1.6": Mode(_over(1.6)),
        "over-selection 1.6, late folded": Mode(_over(1.6), _FOLD),
        "buffered": Mode(buffered(_PLAN, _BUFFER), _FOLD),
    }
)
BARRED = ("over-selection 1.6", "over-selection 1.6, late folded", "buffered")
FLEETS = ("well", "without", "stragglers")
"""All devices well; those that are not left out; and as they are."""


class Vanishing:
    """A device whose power fails in every training: nobody hears of it before its keep-alive has ended."""

    def __init__(self, inner: DeviceEngine, gone: Callable[[float], None]) -> None:
        self._inner, self._gone, self._here = inner, gone, True

    @property
    def will(self) -> Will | None:
        return self._inner.will

    @property
    def wake_at(self) -> float | None:
        return self._inner.wake_at if self._here else None

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        if not self._here:
            return ()
        effects = self._inner.handle(event, now)
        if any(isinstance(e, Compute) and e.job == "train" for e in effects):
            self._here = False
            self._gone(now)
            return ()
        return effects


def measure(pool: Executor, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Seconds of virtual time to the target accuracy, by mode and fleet."""
    waiting = {pool.submit(played, m, f, s): (m, f, s) for m, f, s in combinations(MODES, FLEETS, seeds)}
    runs = []
    for done in as_completed(waiting):
        runs.append(done.result())
        r = runs[-1]
        print(f"bench: stragglers, {r['mode']}, {r['fleet']}: {r['seconds']:.0f} s", file=sys.stderr)
    return summary(runs)


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and how many times longer it took with stragglers: the geometric mean over seeds.

    Each seed is compared with itself: rounds to the target differ more from seed to seed than between fleets.
    """
    runs = sorted(runs, key=lambda r: (list(MODES).index(r["mode"]), FLEETS.index(r["fleet"]), r["seed"]))
    seconds = {(r["mode"], r["fleet"], r["seed"]): float(r["seconds"]) for r in runs}
    seeds = sorted({r["seed"] for r in runs})
    return {
        "devices": DEVICES,
        "slow": SLOW,
        "times_slower": TIMES_SLOWER,
        "vanishing": VANISHING,
        "target_accuracy": TARGET,
        "seconds": {
            m: {f: statistics.median(seconds[m, f, s] for s in seeds) for f in FLEETS} for m in MODES
        },
        "ratio": {
            m: {
                f: statistics.geometric_mean(seconds[m, "stragglers", s] / seconds[m, f, s] for s in seeds)
                for f in ("without", "well")
            }
            for m in MODES
        },
        "runs": runs,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """Against a fleet without them; with a target and enough over-selection also against one of which all
    are well: a buffered fleet loses what they would have contributed."""
    held = [(mode, "without") for mode in BARRED] + [(BARRED[0], "well")]
    said = {"without": "without them", "well": "in which all are well"}
    return [
        at_most(
            f"stragglers, {mode}: time to {TARGET:.0%} in times of a fleet {said[fleet]}",
            found["ratio"][mode][fleet],
            LIMIT,
        )
        for mode, fleet in held
    ]


def played(mode: str, fleet: str, seed: int) -> dict[str, Any]:
    """One run to the target accuracy, or to `MOST_S`."""
    world, rng = World(restart_s=AWAY_S), np.random.default_rng([seed, 5])
    order, pace = rng.permutation(DEVICES), np.exp(SPREAD * rng.standard_normal(DEVICES))
    slow = set(order[: round(SLOW * DEVICES)].tolist())
    vanishing = set(order[len(slow) : len(slow) + round(VANISHING * DEVICES)].tolist())
    campaign = Campaign(
        fleet="bench",
        cohort="default",
        plan=MODES[mode].plan,
        lateness=MODES[mode].lateness,
        until_accuracy=TARGET,
        training=Training(epochs=EPOCHS, batch_size=8, learning_rate=0.1),
        codec=PRESETS["dense8"],
        delta_codec=PRESETS["dense8"],
    )
    world.add(
        "coordinator",
        lambda: CoordinatorEngine([(campaign, softmax.subject())]),
        connection=Connection(0.01, 1e7, 1e7),
        speed=Speed(0.05),
    )
    train = softmax.data().train
    for i, where in enumerate(deal(train.y, DEVICES, SKEW, seed)):
        if fleet == "without" and i in slow | vanishing:
            continue
        learner, name = softmax.Softmax(train.at(where)), f"d{i}"
        bad = fleet == "stragglers"

        def make(i: int = i, name: str = name, learner: softmax.Softmax = learner, bad: bool = bad) -> Any:
            engine = DeviceEngine(DeviceSettings(name), learner)
            if not (bad and i in vanishing):
                return engine
            return Vanishing(engine, lambda now: world.at(now + NOTICED_S, lambda: world.crash(name)))

        seconds = TRAINING_S * float(pace[i]) * (TIMES_SLOWER if bad and i in slow else 1)
        world.add(name, make, speed=Speed(0.0, seconds / (EPOCHS * learner.samples)))

    def finished() -> bool:
        node = world.node("coordinator")
        return isinstance(node, CoordinatorEngine) and node.finished

    world.run(MOST_S, stop=finished)
    closed = [n.fields for _, h, n in world.notes if h == "coordinator" and n.kind == "closed"]
    return {
        "mode": mode,
        "fleet": fleet,
        "seed": seed,
        "seconds": world.now if finished() else float("inf"),
        "rounds": len(closed),
        "updates": sum(int(str(f["updates"])) for f in closed),
        "late": sum(int(str(f["late"])) for f in closed),
        "round_seconds": statistics.median(float(str(f["seconds"])) for f in closed),
    }
