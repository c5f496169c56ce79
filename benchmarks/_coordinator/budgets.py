"""Thirty simulated days of a thousand devices with mixed budgets: none may be exceeded, and what it costs.

The engines are the real ones, in the virtual clock's world; bytes are those that the world counts for each
device, joules those of `laconic.edge_sdk.power` for a Raspberry Pi 4B on Wi-Fi. The learner is a softmax
regression on twenty handwritten digits a device, in numpy. Two rounds a day ask a twentieth of the fleet
each, by name: six thousand offers in all, so that both runs take a few minutes of one core.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from _result import Bar, at_least, at_most
from msgspec.structs import replace

from laconic.budget import calendar
from laconic.budget.allowance import of_device
from laconic.compression import PRESETS
from laconic.coordinator.advance import Score
from laconic.coordinator.budgets import Budget, Group, allowances_of
from laconic.coordinator.campaign import Campaign, Subject
from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.rounds import Plan
from laconic.coordinator.selection import jain
from laconic.device_sim.world import Connection, Speed, World
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.learner import Trained
from laconic.edge_sdk.power import ModelledPower
from laconic.edge_sdk.sensors import Readings
from laconic.protocol.messages import Allowance, Training
from laconic.schema import Schema, TensorSpec, Vector
from laconic.transport.link import WireBytes

DEVICES: Final = 1000
DAYS: Final = 30
ROUNDS_A_DAY: Final = 2
SHARE: Final = 0.05
SAMPLES: Final = 20
EPOCHS: Final = 200
SEED: Final = 5
FIRST_DAY: Final = 0.25
"""It begins on 1 January 1970 at six: all thirty days lie in January, by the clocks of every zone."""
DAY: Final = 86_400.0

SCHEMA: Final = Schema((TensorSpec("w", (10, 64)), TensorSpec("b", (10,))))
BUNDLE: Final = "d1" * 8
ZONES: Final = ("UTC", "Europe/Rome", "America/New_York", "Asia/Kathmandu", "+09:00", "-03:30")


def budget(scale: float) -> Budget:
    """A fifth of the fleet each: by month over a metered network, by day, by joules, by hours, free."""

    def of(limit: int) -> int:
        return int(limit * scale)

    return Budget(
        group=[
            Group(devices="month-*", metered_bytes_per_day=of(20_000), metered_bytes_per_month=of(22_000)),
            Group(devices="day-*", unmetered_bytes_per_day=of(18_000), bytes_per_month=of(60_000)),
            Group(devices="joules-*", joules_per_day=285.0, bytes_per_month=of(60_000)),
            Group(devices="hours-*", quiet_hours="21:00-06:00", min_charge=0.3, bytes_per_day=of(24_000)),
        ]
    )


KINDS: Final = ("month", "day", "joules", "hours", "free")


def names(devices: int) -> list[str]:
    return [f"{KINDS[i % len(KINDS)]}-{i:04d}" for i in range(devices)]


# --- a learner ---------------------------------------------------------------------------------------------


@functools.cache
def digits() -> tuple[Vector, Vector, Vector, Vector]:
    """Training images (1400, 64) and labels, held-out images and labels."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    return x[:1400], y[:1400], x[1400:], y[1400:]


def _probabilities(weights: Vector, x: Vector) -> Vector:
    z = x @ weights[:640].reshape(10, 64).T + weights[640:]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), np.float32)


def score(weights: Vector) -> Score:
    """Loss and accuracy on the held-out images."""
    _, _, x, y = digits()
    p = _probabilities(weights, x)
    return Score(float(-np.log(p[np.arange(len(y)), y] + 1e-9).mean()), float((p.argmax(axis=1) == y).mean()))


@dataclass
class SoftmaxLearner:
    """Softmax regression by gradient descent on this device's digits, two thirds of them of two classes."""

    seed: int
    schema: Schema = SCHEMA
    bundle: str = BUNDLE
    _x: Vector = field(init=False)
    _t: Vector = field(init=False)

    def __post_init__(self) -> None:
        x, y, _, _ = digits()
        rng = np.random.default_rng(self.seed)
        own = rng.choice(np.flatnonzero(np.isin(y, rng.choice(10, 2, replace=False))), 2 * SAMPLES // 3)
        chosen = np.concatenate([own, rng.choice(len(x), SAMPLES - len(own))])
        self._x, self._t = x[chosen], np.eye(10, dtype=np.float32)[y[chosen]]

    @property
    def initial(self) -> Vector:
        return np.zeros(SCHEMA.size, np.float32)

    @property
    def samples(self) -> int:
        return SAMPLES

    def train(
        self, weights: Vector, training: Training, seed: int, private: bytes, checkpoint: bytes = b""
    ) -> Trained:
        w, before = weights.copy(), None
        for _ in range(training.epochs):
            p = _probabilities(w, self._x)
            if before is None:
                before = float(-(self._t * np.log(p + 1e-9)).sum(axis=1).mean())
            g = (p - self._t) / SAMPLES
            w[:640] -= training.learning_rate * (g.T @ self._x).reshape(-1)
            w[640:] -= training.learning_rate * g.sum(axis=0)
        return Trained(w, SAMPLES, before, None)


# --- a world -----------------------------------------------------------------------------------------------


class Sensors:
    """A board and a radio by their profiles; a battery that sinks over the day and charges in the night."""

    def __init__(self, world: World, name: str, zone: str) -> None:
        self._world, self._zone = world, calendar.zone_of(zone)
        began = world.bytes_of(name)

        def wire() -> WireBytes:
            up, down = world.bytes_of(name)
            return WireBytes(up - began[0], down - began[1], True)

        self._metered = name.startswith("month-")
        self.power = ModelledPower("rpi_4b", "wifi_2012", wire, metered=self._metered)

    def worked(self, seconds: float) -> None:
        self.power.worked(seconds)

    def read(self, now: float) -> Readings:
        hours = (now - calendar.day_ends(now, self._zone)) / 3600 + 24
        charging = hours < 5
        return replace(self.power.read(now), charge=1.0 - 0.04 * hours, charging=charging)


@dataclass
class Spent:
    """What the world counted for a device, midnight by midnight of its own zone."""

    bytes: list[int] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What thirty days came to."""

    allowances: dict[str, Allowance]
    spent: dict[str, Spent]
    committed: Counter[str]
    skipped: Counter[str]
    accuracy: list[float]
    cuts: int


def simulate(devices: int, days: int, limits: Budget) -> Run:
    """A fleet under `limits`; now and then a link breaks."""
    world, fleet = World(), names(devices)
    campaign = Campaign(
        fleet="budgets",
        cohort="default",
        plan=Plan(days * ROUNDS_A_DAY, 1, 1, 1800.0, DAY / ROUNDS_A_DAY),
        training=Training(epochs=EPOCHS, batch_size=SAMPLES, learning_rate=0.3),
        # Cheap to decode: most of the run's time would be devices that catch up with deltas.
        delta_codec=PRESETS["dense8"],
        budget=limits,
        share=SHARE,
        targeted=True,
    )
    subject = Subject(BUNDLE, SCHEMA, np.zeros(SCHEMA.size, np.float32), score)
    world.add(
        "coordinator",
        lambda: CoordinatorEngine([(campaign, subject)]),
        connection=Connection(0.001, 1e8, 1e8),
        start_s=FIRST_DAY * DAY,
    )
    rng, sensors, zones = np.random.default_rng(SEED), {}, {}
    for i, name in enumerate(fleet):
        zones[name] = ZONES[int(rng.integers(len(ZONES)))]
        world.add(
            name,
            _maker(world, name, zones[name], SoftmaxLearner(i), sensors),
            connection=Connection(0.05, 1e5, 4e5),
            # 40 to 45 mJ a sample: the prior is 50.
            speed=Speed(0.02, float(rng.uniform(0.043, 0.0486))),
            start_s=FIRST_DAY * DAY + 1.0,
        )
    allowances = allowances_of(limits)
    spent = {name: Spent() for name in fleet}
    _watch(world, spent, zones, sensors, days)
    cuts = 0
    for _ in range(devices // 5):
        name, at = fleet[int(rng.integers(devices))], FIRST_DAY * DAY + float(rng.uniform(10, days * DAY))
        world.at(at, functools.partial(world.cut, name, 30.0))
        cuts += 1
    end = (FIRST_DAY + days) * DAY
    world.run(end)
    for name in fleet:
        _read(world, name, spent[name], sensors[name], end)
    committed: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    accuracy = []
    for _, host, note in world.notes:
        if host == "coordinator" and note.kind == "committed":
            committed[str(note.fields["device"])] += 1
        elif host == "coordinator" and note.kind == "skipped":
            skipped[str(note.fields["why"])] += 1
        elif note.kind == "version":
            accuracy.append(float(str(note.fields["accuracy"])))
    return Run({n: of_device(n, allowances) for n in fleet}, spent, committed, skipped, accuracy, cuts)


def _maker(
    world: World, name: str, zone: str, learner: SoftmaxLearner, sensors: dict[str, Sensors]
) -> Callable[[], DeviceEngine]:
    def make() -> DeviceEngine:
        sensors[name] = Sensors(world, name, zone)
        return DeviceEngine(DeviceSettings(name, zone=zone), learner, sensors[name])

    return make


def _watch(
    world: World, spent: dict[str, Spent], zones: dict[str, str], sensors: dict[str, Sensors], days: int
) -> None:
    """Read every device's counters at each of its midnights."""
    for zone in ZONES:
        mine = [name for name, z in zones.items() if z == zone]
        at = FIRST_DAY * DAY
        while (at := calendar.day_ends(at, calendar.zone_of(zone))) < (FIRST_DAY + days) * DAY:

            def read(mine: list[str] = mine, at: float = at) -> None:
                for name in mine:
                    _read(world, name, spent[name], sensors.get(name), at)

            world.at(at, read)


def _read(world: World, name: str, into: Spent, sensors: Sensors | None, now: float) -> None:
    into.bytes.append(sum(world.bytes_of(name)))
    readings = None if sensors is None else sensors.read(now)
    into.joules.append(0.0 if readings is None else readings.joules_compute + readings.joules_radio)


# --- the part ----------------------------------------------------------------------------------------------


def measure(pool: Executor, devices: int = DEVICES, days: int = DAYS) -> dict[str, Any]:
    """Two runs: with the budgets, and with every byte budget halved."""
    runs = {name: pool.submit(_run, devices, days, scale) for name, scale in (("full", 1.0), ("halved", 0.5))}
    return {
        "devices": devices,
        "days": days,
        "rounds": days * ROUNDS_A_DAY,
        **{name: run.result() for name, run in runs.items()},
    }


def _run(devices: int, days: int, scale: float) -> dict[str, Any]:
    return _told(simulate(devices, days, budget(scale)))


def _told(run: Run) -> dict[str, Any]:
    over_bytes, over_joules, fullest, used = 0, 0.0, 0.0, Counter[str]()
    for name, spent in run.spent.items():
        a = run.allowances[name]
        days = np.diff(np.array([0, *spent.bytes]))
        joules = np.diff(np.array([0.0, *spent.joules]))
        # Metered and not is one and the same here: a device is on one network for good.
        daily = (a.bytes_per_day, a.metered_bytes_per_day, a.unmetered_bytes_per_day)
        monthly = (a.bytes_per_month, a.metered_bytes_per_month)
        # All days lie in one month of every zone.
        over = [int(days.max()) - x for x in daily if x is not None]
        over += [spent.bytes[-1] - x for x in monthly if x is not None]
        over_bytes = max([over_bytes, *over])
        if a.joules_per_day is not None:
            fullest = max(fullest, float(joules.max()))
            over_joules = max(over_joules, float(joules.max()) / a.joules_per_day - 1)
        used[name.split("-")[0]] += spent.bytes[-1]
    counts = {kind: [run.committed[n] for n in run.spent if n.startswith(f"{kind}-")] for kind in KINDS}
    return {
        "bytes over a budget, at most": max(0, over_bytes),
        "share over a joule budget, at most": max(0.0, over_joules),
        "joules of the fullest day of a device with 285": fullest,
        "updates": sum(run.committed.values()),
        "skips by reason": dict(run.skipped),
        "bytes a device by group": {k: used[k] // max(1, len(c)) for k, c in counts.items()},
        "updates a device by group": {k: sum(c) / max(1, len(c)) for k, c in counts.items()},
        "jain of participation": jain([run.committed[n] for n in run.spent]),
        "jain by group": {k: jain(c) for k, c in counts.items()},
        "devices that never took part": sum(run.committed[n] == 0 for n in run.spent),
        "links broken": run.cuts,
        "accuracy after 10 days, 20 days, at the end": [
            run.accuracy[int(len(run.accuracy) * part) - 1] for part in (1 / 3, 2 / 3, 1.0)
        ],
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """No byte over, no joule budget by more than 1 %; and the limits were near enough to matter."""
    out = []
    for run in ("full", "halved"):
        out += [
            at_most(f"{run}: bytes over a budget", found[run]["bytes over a budget, at most"], 0),
            at_most(f"{run}: share over joules", found[run]["share over a joule budget, at most"], 0.01),
        ]
    groups = found["halved"]["updates a device by group"]
    # Otherwise nothing would have been shown: the budgets must have cost something.
    out.append(at_least("halved: updates, free over by month", groups["free"] / groups["month"], 1.2))
    return out
