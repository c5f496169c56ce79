"""A fleet without training: who is available, and what batteries do, for a hundred thousand devices at once.

The same pieces as `laconic.device_sim.body` walks them one device at a time, in arrays: what a device has
after a month differs by rounding alone. For hosts that only idle: no jobs, no transfers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pi
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from laconic.device_sim import chance
from laconic.device_sim.body import Body, Build, Cell
from laconic.device_sim.signals import DAY_S, HOUR_S, Daily, Nightly, Sessions
from laconic.errors import ConfigError

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_BLOCK: Final = 8192
"""Devices at a time: what a piece of work needs stays in the cache."""
_CHARGER, _SESSIONS, _CHARGE = 1, 2, 3


@dataclass(frozen=True)
class Fleet:
    """Devices of one build that live by the same habits, each with its own chances."""

    build: Build
    devices: int
    seed: int
    user_w: tuple[float, ...] = (0.0,)
    """What the users take, watts, in equal parts of the day."""
    charger_w: float = 10.0
    charger_begin_s: float = 22 * HOUR_S
    charger_length_s: float = 8 * HOUR_S
    charger_jitter_s: float = HOUR_S
    least_charge: float = 0.3
    """Charges at the start are uniform from here to `most_charge`."""
    most_charge: float = 1.0
    mean_available: float = 0.3
    swing: float = 4.0
    peak_s: float = 3 * HOUR_S

    def __post_init__(self) -> None:
        if self.build.cell is None:
            raise ConfigError("battery of a fleet", value=None, remedy="a fleet on mains needs no simulating")
        # Their own checks of the habits.
        self.charger(0)
        self.sessions(0)
        if not 0 < self.least_charge <= self.most_charge <= 1:
            raise ConfigError(
                "charges", value=(self.least_charge, self.most_charge), limit="above 0, at most 1"
            )

    def charger(self, device: int) -> Nightly:
        """When a device is on its charger."""
        key = chance.key(self.seed, _CHARGER, device)
        window = (self.charger_begin_s, self.charger_length_s, self.charger_jitter_s)
        return Nightly(self.charger_w, key, *window)

    def sessions(self, device: int) -> Sessions:
        """When a device is available."""
        key = chance.key(self.seed, _SESSIONS, device)
        return Sessions(key, self.mean_available, self.swing, self.peak_s)

    def body(self, device: int) -> Body:
        """One device as the world has it."""
        u = chance.uniform(chance.key(self.seed, _CHARGE, device), 0)
        charge = self.least_charge + (self.most_charge - self.least_charge) * u
        return Body(self.build, charge=charge, charger=self.charger(device), user=Daily(self.user_w))


@dataclass
class History:
    """What became of a fleet. Joules by device; shares of the fleet by hour."""

    idle_j: Floats
    user_j: Floats
    self_discharge_j: Floats
    charged_j: Floats
    start_j: Floats
    energy_j: Floats
    on: Flags
    deaths: npt.NDArray[np.int64]
    """How often each has run empty."""
    available: Floats = field(default_factory=lambda: np.zeros(0))
    """At each hour: within its session, and with power."""
    charging: Floats = field(default_factory=lambda: np.zeros(0))
    pieces: int = 0
    """Pieces of time that were integrated, over all devices."""

    @property
    def imbalance(self) -> float:
        """The worst device's: what its ledger is off by, relative to what has passed through it."""
        spent = self.idle_j + self.user_j + self.self_discharge_j
        off = np.abs(self.start_j - self.energy_j + self.charged_j - spent)
        return float((off / np.maximum(np.maximum(spent, self.charged_j), self.start_j)).max(initial=0.0))


def lived(fleet: Fleet, seconds: float) -> History:
    """Let a fleet live for so many seconds; available and charging devices are counted every hour."""
    blocks = [
        _block(fleet, np.arange(first, min(first + _BLOCK, fleet.devices), dtype=np.int64), seconds)
        for first in range(0, fleet.devices, _BLOCK)
    ]
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(b, name) for b in blocks])
        for name in (
            "idle_j",
            "user_j",
            "self_discharge_j",
            "charged_j",
            "start_j",
            "energy_j",
            "on",
            "deaths",
        )
    }
    return History(
        **joined,
        available=np.sum([b.available for b in blocks], axis=0) / fleet.devices,
        charging=np.sum([b.charging for b in blocks], axis=0) / fleet.devices,
        pieces=sum(b.pieces for b in blocks),
    )


def _block(fleet: Fleet, devices: npt.NDArray[np.int64], seconds: float) -> History:
    cell = fleet.build.cell
    assert cell is not None
    u = chance.uniforms(chance.keys(fleet.seed, _CHARGE, devices), np.zeros(len(devices), np.int64))
    charge = fleet.least_charge + (fleet.most_charge - fleet.least_charge) * u
    hours = int(seconds // HOUR_S) + 1
    walk = _Walk(fleet, cell, devices, charge * cell.capacity_j)
    available, charging = np.zeros(hours), np.zeros(hours)
    for hour in range(hours):
        walk.advance(min(hour * HOUR_S, seconds))
        available[hour] = np.count_nonzero(walk.on & _in_session(fleet, walk.session_keys, hour * HOUR_S))
        charging[hour] = np.count_nonzero(walk.charger(np.full(len(devices), hour * HOUR_S))[0])
    walk.advance(seconds)
    return History(
        idle_j=walk.idle,
        user_j=walk.user,
        self_discharge_j=walk.leak,
        charged_j=walk.charged,
        start_j=charge * cell.capacity_j,
        energy_j=walk.energy,
        on=walk.on,
        deaths=walk.deaths,
        available=available,
        charging=charging,
        pieces=walk.pieces,
    )


class _Walk:
    """`laconic.device_sim.body.Body` for many devices at once, each at its own moment."""

    def __init__(self, fleet: Fleet, cell: Cell, devices: npt.NDArray[np.int64], energy: Floats) -> None:
        self._fleet, self._cell = fleet, cell
        self._charger_keys = chance.keys(fleet.seed, _CHARGER, devices)
        self.session_keys = chance.keys(fleet.seed, _SESSIONS, devices)
        n = len(devices)
        self.t, self.energy = np.zeros(n), energy.copy()
        self.on = np.ones(n, bool)
        self.deaths = np.zeros(n, np.int64)
        self.idle, self.user, self.leak, self.charged = (np.zeros(n) for _ in range(4))
        self.pieces = 0

    def advance(self, to: float) -> None:
        """Let time pass until `to`; a host that is charged enough starts again at once."""
        while len(at := np.flatnonzero(self.t < to)):
            self.pieces += len(at)
            self._piece(at, to)

    def charger(self, t: Floats, at: npt.NDArray[Any] | slice = slice(None)) -> tuple[Floats, Floats]:
        """Watts of the chargers, and until when."""
        f = self._fleet
        origin = f.charger_begin_s - f.charger_jitter_s
        k, end = _cycles(t, origin, DAY_S)
        keys = self._charger_keys[at]
        move = 2 * chance.uniforms(keys, 2 * k) - 1
        first = k * DAY_S + f.charger_begin_s + f.charger_jitter_s * move
        move = 2 * chance.uniforms(keys, 2 * k + 1) - 1
        last = first + f.charger_length_s + f.charger_jitter_s * move
        inside = (t >= first) & (t < last)
        until = np.where(t < first, first, np.where(inside, np.minimum(last, end), end))
        return np.where(inside, f.charger_w, 0.0), until

    def _piece(self, at: npt.NDArray[Any], to: float) -> None:
        f, cell, t, energy, on = self._fleet, self._cell, self.t[at], self.energy[at], self.on[at]
        charger_w, stop = self.charger(t, at)
        slot_s = DAY_S / len(f.user_w)
        slot, slot_end = _cycles(t, 0.0, slot_s)
        stop = np.minimum(np.where(on, np.minimum(stop, slot_end), stop), to)
        idle_w = np.where(on, f.build.idle_w, 0.0)
        user_w = np.where(on, np.array(f.user_w)[slot % len(f.user_w)], 0.0)
        leak_w = np.where(energy > 0, cell.self_discharge_w, np.minimum(cell.self_discharge_w, charger_w))
        out_w = idle_w + user_w + leak_w
        net_w = charger_w - out_w
        seconds = stop - t
        after = energy + net_w * seconds
        held = (net_w > 0) & (energy >= cell.capacity_j)
        fills = (net_w > 0) & ~held & (after >= cell.capacity_j)
        ends = (net_w < 0) & (after <= 0)
        level = cell.restart * cell.capacity_j
        starts = ~on & (energy < level) & (after >= level)
        into_w = np.where(held, out_w, charger_w)
        with np.errstate(divide="ignore", invalid="ignore"):
            seconds = np.where(fills, (cell.capacity_j - energy) / net_w, seconds)
            seconds = np.where(ends, energy / -net_w, seconds)
            seconds = np.where(starts, (level - energy) / net_w, seconds)
        after = np.where(held, energy, after)
        after = np.where(fills, cell.capacity_j, after)
        after = np.where(ends, 0.0, after)
        after = np.where(starts, level, after)
        self.idle[at] += idle_w * seconds
        self.user[at] += user_w * seconds
        self.leak[at] += leak_w * seconds
        self.charged[at] += into_w * seconds
        self.t[at] = np.where(fills | ends | starts, np.minimum(stop, t + seconds), stop)
        self.energy[at] = after
        died = on & (after <= 0)
        self.deaths[at] += died
        self.on[at] = (on & ~died) | starts


def _in_session(f: Fleet, keys: chance.Keys, t: float) -> Flags:
    """Which devices are within their session."""
    k = int(np.floor((t - (f.peak_s - DAY_S / 2)) / DAY_S))
    u = chance.uniforms(keys, np.full(len(keys), k, np.int64))
    # Within the session: the share of the fleet that is there now is above what the device has drawn.
    from_peak_s = abs(t - (k * DAY_S + f.peak_s))
    amplitude = (f.swing - 1) / (f.swing + 1)
    if not amplitude:
        return np.asarray(u < f.mean_available)
    half = np.arccos(np.clip((u / f.mean_available - 1) / amplitude, -1.0, 1.0)) * DAY_S / (2 * pi)
    return np.asarray((from_peak_s < half) | (half >= DAY_S / 2))


def _cycles(t: Floats, origin_s: float, period_s: float) -> tuple[npt.NDArray[np.int64], Floats]:
    k = np.floor((t - origin_s) / period_s).astype(np.int64)
    while (early := _end(k, origin_s, period_s) <= t).any():
        k = k + early
    return k, _end(k, origin_s, period_s)


def _end(k: npt.NDArray[np.int64], origin_s: float, period_s: float) -> Floats:
    return np.asarray(origin_s + (k + 1) * period_s, np.float64)
