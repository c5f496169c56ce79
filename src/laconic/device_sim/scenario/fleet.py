"""A scenario's devices as hosts of a world: links, bodies, habits, each with its own chances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import cos as cosine
from math import exp, inf, log, pi, sqrt
from pathlib import Path

from laconic.device_sim import chance, traces
from laconic.device_sim.body import Body, Build, build, cell
from laconic.device_sim.computing import Failures, Speed, speed_by_batch, speed_by_flops
from laconic.device_sim.energy import Part
from laconic.device_sim.links import Connection
from laconic.device_sim.medium import Medium
from laconic.device_sim.radio import compiled
from laconic.device_sim.scenario.settings import (
    BatterySection,
    DevicesSection,
    PresenceSection,
    ScenarioSettings,
    SpeedSection,
    counts,
)
from laconic.device_sim.signals import (
    HOUR_S,
    Constant,
    Daily,
    Nightly,
    Recorded,
    Sessions,
    Signal,
    Solar,
    Synthetic,
)
from laconic.device_sim.wire import Tls, Wire
from laconic.edge_sdk.settings import DeviceSettings
from laconic.errors import ConfigError
from laconic.profiles import Board, Origin, board, radio

_CHARGE, _CHARGER, _PRESENCE, _START, _PACE, _TRACE, _PHASE = 11, 12, 13, 14, 15, 16, 17
_BYTES_PER_MBIT = 125_000
_LEAST_LIFE_S = 0.1
_LEAST_JOB_S = 1e-3
_PING_BYTES, _TLS_RECORD_BYTES = 4, 22
"""A ping with its answer, and what TLS 1.3 adds to each of the two."""


@dataclass(frozen=True)
class Device:
    """One host of the world: all that `World.add` wants to know, and its process's settings."""

    name: str
    kind: str
    settings: DeviceSettings
    connection: Connection
    speed: Speed
    body: Body
    presence: Signal | None
    failures: Failures
    metered: Signal
    start_s: float


def devices_of(s: ScenarioSettings, folder: Path) -> Iterator[Device]:
    """Every device, class by class; `<class>-<number>` is its name. Raises `ConfigError`."""
    media = _media(s)
    number = 0
    for d, count in zip(s.devices, counts(s), strict=True):
        with _named(d):
            kind = _Kind(s, d, media, folder)
            for i in range(count):
                yield kind.device(f"{d.name}-{i}", number)
                number += 1


def check_classes(s: ScenarioSettings, folder: Path) -> None:
    """What `devices_of` needs of each class: its board, radio, traces, speed. Raises `ConfigError`."""
    media = _media(s)
    for d in s.devices:
        with _named(d):
            _Kind(s, d, media, folder)


def _media(s: ScenarioSettings) -> dict[str, Medium]:
    return {m.name: Medium(m.up_mbps * _BYTES_PER_MBIT, m.down_mbps * _BYTES_PER_MBIT) for m in s.media}


@contextmanager
def _named(d: DevicesSection) -> Iterator[None]:
    """Errors within are of that class."""
    try:
        yield
    except ConfigError as e:
        thing = e.thing if e.thing.startswith("devices.") else f"devices.{d.name}: {e.thing}"
        raise ConfigError(thing, value=e.value, limit=e.limit, remedy=e.remedy) from e


class _Kind:
    """What devices of a class share."""

    def __init__(
        self, s: ScenarioSettings, d: DevicesSection, media: dict[str, Medium], folder: Path
    ) -> None:
        self._s, self._d = s, d
        self._start_s = s.start_hour * HOUR_S
        profile = board(d.board)
        self._build = _build(d, profile)
        self._connection = _connection(d, media)
        c = d.connection
        self._up, self._down = (traces.all_of(folder, t) if t else () for t in (c.up_trace, c.down_trace))
        self._speed = _speed(d.speed, profile, d.cores)
        f = d.failures
        self._failures = Failures(f.drop_out, f.away_s, f.crash, f.slow)
        job_s = (self._speed.job_s + self._speed.sample_s) * f.slow
        if (f.crash or (f.drop_out and f.away_s < _LEAST_JOB_S)) and job_s < _LEAST_JOB_S:
            # What fails as soon as it has begun, and begins again at once, makes events without end.
            raise ConfigError(
                f"devices.{d.name}.speed.job_s",
                value=self._speed.job_s,
                limit=f"{_LEAST_JOB_S} s for a job of a sample, where jobs fail and are begun again at once",
            )
        records = 2 * _TLS_RECORD_BYTES if d.connection.tls != "none" else 0
        self._settings = DeviceSettings(
            d.name,
            cohort=s.coordinator.cohort,
            limits=d.limits,
            zone=d.time_zone,
            standing_bytes_per_s=(_PING_BYTES + records) / d.connection.keep_alive_s,
        )

    def device(self, name: str, number: int) -> Device:
        d, seed = self._d, self._s.seed

        def drawn(what: int) -> float:
            return chance.uniform(chance.key(seed, what, number), 0)

        speed = self._speed
        if d.speed.spread:
            # Log-normal, by Box and Muller.
            key = chance.key(seed, _PACE, number)
            normal = sqrt(-2 * log(1 - chance.uniform(key, 0))) * cosine(2 * pi * chance.uniform(key, 1))
            speed = Speed(speed.job_s, speed.sample_s * exp(d.speed.spread * normal))
        b = d.battery
        charge = 1.0 if b is None else b.charge_least + (b.charge_most - b.charge_least) * drawn(_CHARGE)
        body = Body(
            self._build,
            charge=charge,
            charger=Constant(0.0) if b is None else _charger(b, chance.key(seed, _CHARGER, number)),
            user=Daily(b.user_w) if b is not None and b.user_w else Constant(0.0),
            start_s=self._start_s,
        )
        return Device(
            name=name,
            kind=d.name,
            settings=replace(self._settings, name=name),
            connection=self._linked(drawn(_TRACE), drawn(_PHASE)),
            speed=speed,
            body=body,
            presence=_presence(d.presence, chance.key(seed, _PRESENCE, number)),
            failures=self._failures,
            metered=Constant(float(d.metered)),
            start_s=self._start_s + d.start_spread_s * drawn(_START),
        )

    def _linked(self, which: float, phase: float) -> Connection:
        """A device's link: of both lists of traces the one at the same place, at the same phase."""
        if not (self._up or self._down):
            return self._connection
        own = self._d.connection.trace_phase == "own"

        def one(recorded: Sequence[Recorded]) -> Recorded | None:
            if not recorded:
                return None
            trace = recorded[int(which * len(recorded))]
            return trace.begun(-phase * trace.period_s) if own else trace

        return replace(self._connection, up_trace=one(self._up), down_trace=one(self._down))


def _build(d: DevicesSection, profile: Board) -> Build:
    battery = None
    if d.battery is not None:
        mah = d.battery.mah
        if mah is None and profile.battery_mah is not None:
            mah = profile.battery_mah.value
        if mah is None:
            raise ConfigError(
                f"devices.{d.name}.battery.mah", limit=f"a number: {d.board} has no battery in its profile"
            )
        battery = cell(mah)
    found = build(profile, radio(d.radio) if d.radio else None, cores=d.cores, battery=battery)
    if d.speed.task is None:
        # The board's watts may be known: for how long they flow is the scenario's word.
        found = replace(found, origins={**(found.origins or {}), Part.COMPUTE: Origin.ASSUMED})
    if d.battery is not None and battery is not None and d.battery.charger != "none":
        # A host that starts and runs empty again in no time makes events without end.
        most_w = found.most_w + max(d.battery.user_w, default=0.0)
        lasts_s = battery.restart * battery.capacity_j / most_w if most_w else inf
        if lasts_s < _LEAST_LIFE_S:
            raise ConfigError(
                f"devices.{d.name}.battery.mah",
                value=f"{mah:g}, {lasts_s:.2g} s from a start until it is empty",
                limit=f"{_LEAST_LIFE_S} s under full load and user_w",
            )
    return found


def _connection(d: DevicesSection, media: dict[str, Medium]) -> Connection:
    c = d.connection
    power = compiled(radio(d.radio)) if d.radio else None

    def rate(mbps: float | None, own: float) -> float:
        return own if mbps is None else mbps * _BYTES_PER_MBIT

    return Connection(
        latency_s=c.latency_s,
        up_bytes_per_s=rate(c.up_mbps, power.up_bytes_per_s if power else 0.0),
        down_bytes_per_s=rate(c.down_mbps, power.down_bytes_per_s if power else 0.0),
        jitter_s=c.jitter_s,
        loss=c.loss,
        wire=Wire(Tls(c.tls), c.keep_alive_s),
        medium=media[c.medium] if c.medium else None,
    )


def _speed(s: SpeedSection, profile: Board, cores: int) -> Speed:
    if s.flops is not None:
        speed = speed_by_flops(profile, s.flops, cores=cores, efficiency=s.efficiency)
    elif s.task is not None:
        speed = speed_by_batch(profile, s.task, s.batch)
    else:
        speed = Speed(sample_s=s.sample_s or 0.0)
    return Speed(s.job_s, speed.sample_s)


def _charger(b: BatterySection, key: int) -> Signal:
    match b.charger:
        case "always":
            return Constant(b.charger_w)
        case "nightly":
            hours = (b.begin_hour, b.hours, b.jitter_hours)
            begin_s, length_s, jitter_s = (h * HOUR_S for h in hours)
            return Nightly(b.charger_w, key, begin_s, length_s, jitter_s)
        case "solar":
            return Solar(b.charger_w, key)
    return Constant(0.0)


def _presence(p: PresenceSection, key: int) -> Signal | None:
    match p.kind:
        case "sessions":
            return Sessions(key, p.mean, p.swing, p.peak_hour * HOUR_S)
        case "synthetic":
            return Synthetic(key, p.share, p.period_hours * HOUR_S)
    return None
