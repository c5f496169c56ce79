"""What a scenario's settings may be."""

from __future__ import annotations

import re
from math import inf
from typing import Final

from laconic.budget.calendar import check_zone
from laconic.config import within
from laconic.coordinator.round_settings import SYNCHRONOUS
from laconic.device_sim.datasets.cmapss import CHANNELS, SUBSETS
from laconic.device_sim.scenario.settings import (
    BUILT_IN,
    CHARGERS,
    DIVISIONS,
    DRIFTS,
    FETCHED,
    MOST_DEVICES,
    MOST_HOURS,
    PHASES,
    PRESENCES,
    SOURCES,
    TLS,
    DataSection,
    DevicesSection,
    ModelSection,
    ScenarioSettings,
    counts,
)
from laconic.edge_sdk.policy import checked
from laconic.errors import ConfigError

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def check(s: ScenarioSettings) -> ScenarioSettings:
    """`s`. Raises `ConfigError` that names the key, the value and what is allowed."""
    _named("name", s.name)
    within("seed", s.seed, 0, 2**63 - 1)
    within("start_hour", s.start_hour, 0.0, MOST_HOURS)
    within("end.hours", s.end.hours, 1e-6, MOST_HOURS)
    within("end.rounds", 1 if s.end.rounds is None else s.end.rounds, 1, 10**9)
    within("end.accuracy", s.end.accuracy or 0.0, 0.0, 1.0)
    _check_model(s.model)
    _check_data(s.data)
    for key in ("bundle", "held_out"):
        if (found := getattr(s.coordinator, key)) is not None:
            raise ConfigError(f"coordinator.{key}", value=found, remedy="a scenario has [model] and [data]")
    within("baselines.alone_devices", s.baselines.alone_devices, 0, MOST_DEVICES)
    within("baselines.every", s.baselines.every, 1, 10**9)
    media = [m.name for m in s.media]
    _once("media", media)
    for m in s.media:
        _named("media.name", m.name)
        within(f"media.{m.name}.up_mbps", m.up_mbps, 1e-6, 1e6)
        within(f"media.{m.name}.down_mbps", m.down_mbps, 1e-6, 1e6)
    within("fleet_size", s.fleet_size or 0, 0, MOST_DEVICES)
    _once("devices", [d.name for d in s.devices])
    for d in s.devices:
        _check_devices(d, media, s.fleet_size)
    _check_rounds(s)
    for key, values in s.sweep.items():
        if not values:
            raise ConfigError(f"sweep.{key}", value=values, limit="at least one value")
    return s


def _check_rounds(s: ScenarioSettings) -> None:
    """No round can want more devices than there are: it would be waited for to the end."""
    rounds, devices = s.coordinator.rounds, sum(counts(s))
    wanted = {"min_devices": rounds.min_devices}
    if rounds.mode == SYNCHRONOUS:
        # Into a buffer a device may report more than once.
        wanted["min_reports"] = rounds.min_reports
    for key, value in wanted.items():
        if value > devices:
            limit = f"the number of devices, {devices}"
            raise ConfigError(f"coordinator.rounds.{key}", value=value, limit=limit)


def _check_model(m: ModelSection) -> None:
    given = [k for k in ("built_in", "bundle", "onnx") if getattr(m, k) is not None]
    if len(given) != 1:
        raise ConfigError("model", value=given, limit="one of built_in, bundle, onnx")
    if m.local and m.bundle is not None:
        raise ConfigError("model.local", value=m.local, remedy="prepare the bundle with --local")
    if m.built_in is not None:
        _one_of("model.built_in", m.built_in, BUILT_IN)
    within("number of model.hidden", len(m.hidden), 0, 8)
    for width in m.hidden:
        within("model.hidden", width, 1, 65_536)


def _check_data(d: DataSection) -> None:
    _one_of("data.source", d.source, SOURCES)
    _one_of("data.division", d.division, DIVISIONS)
    within("data.held_out", d.held_out, 0.01, 0.9)
    within("data.own_held_out", d.own_held_out, 0.0, 0.5)
    within("data.own_class", d.own_class, 0.01, 1.0)
    within("data.alpha", d.alpha, 1e-3, 1e6)
    within("data.groups_each", d.groups_each, 0, 10**9)
    within("data.samples", d.samples, 0, 10**9)
    if (d.path is None) != (d.source == "digits"):
        raise ConfigError(
            "data.path", value=d.path, limit="none with digits; with others a file (npz) or a folder"
        )
    if d.download and d.source not in FETCHED:
        raise ConfigError("data.download", value=d.download, limit=f"with {', '.join(FETCHED)}")
    c = d.cmapss
    _one_of("data.cmapss.subset", c.subset, SUBSETS)
    within("data.cmapss.window", c.window, 1, 1000)
    within("data.cmapss.stride", c.stride, 1, 1000)
    within("data.cmapss.cap_cycles", c.cap_cycles, 1.0, 1e6)
    within("data.cmapss.unit_cycles", c.unit_cycles, 1e-3, 1e6)
    for channel in c.channels:
        _one_of("data.cmapss.channels", channel, CHANNELS)
    r = d.drift
    _one_of("data.drift.kind", r.kind, DRIFTS)
    within("data.drift.begin_hour", r.begin_hour, 0.0, MOST_HOURS)
    within("data.drift.hours", r.hours, 1e-3, MOST_HOURS)
    within("data.drift.steps", r.steps, 1, 100_000)
    within("data.drift.degrees", r.degrees, -3600.0, 3600.0)
    within("data.drift.gain", r.gain, -1e6, 1e6)
    within("data.drift.offset", r.offset, -1e6, 1e6)
    within("data.drift.classes", r.classes, 1, 100_000)


def _check_devices(d: DevicesSection, media: list[str], fleet_size: int | None) -> None:
    _named("devices.name", d.name)
    where = f"devices.{d.name}"
    if (d.count is None) == (d.share is None):
        raise ConfigError(where, value=(d.count, d.share), limit="count, or a share of fleet_size")
    if d.share is not None and fleet_size is None:
        raise ConfigError("fleet_size", value=None, limit="a number, where a class says its share")
    within(f"{where}.count", d.count or 0, 0, MOST_DEVICES)
    within(f"{where}.share", d.share or 0.0, 0.0, 1.0)
    within(f"{where}.start_spread_s", d.start_spread_s, 0.0, 1e7)
    c, b, v = d.connection, d.battery, d.speed
    within(f"{where}.connection.latency_s", c.latency_s, 0.0, 60.0)
    within(f"{where}.connection.jitter_s", c.jitter_s, 0.0, 60.0)
    within(f"{where}.connection.loss", c.loss, 0.0, 0.9)
    within(f"{where}.connection.keep_alive_s", c.keep_alive_s, 5.0, 65_535.0)
    for key in ("up_mbps", "down_mbps"):
        rate = getattr(c, key)
        if rate is not None or d.radio is None:
            within(f"{where}.connection.{key}", inf if rate is None else rate, 1e-6, 1e6)
    for key in ("up_trace", "down_trace"):
        if getattr(c, key) == "":
            raise ConfigError(f"{where}.connection.{key}", value="an empty text", limit="a path")
    _one_of(f"{where}.connection.tls", c.tls, TLS)
    _one_of(f"{where}.connection.trace_phase", c.trace_phase, PHASES)
    if c.medium is not None:
        _one_of(f"{where}.connection.medium", c.medium, media or ["none: there are no [[media]]"])
    if b is not None:
        _one_of(f"{where}.battery.charger", b.charger, CHARGERS)
        within(f"{where}.battery.charge_most", b.charge_most, 1e-6, 1.0)
        within(f"{where}.battery.charge_least", b.charge_least, 1e-6, b.charge_most)
        within(f"{where}.battery.charger_w", b.charger_w, 0.0, 1e6)
        within(f"{where}.battery.mah", 1.0 if b.mah is None else b.mah, 1e-3, 1e9)
        within(f"{where}.battery.begin_hour", b.begin_hour, -24.0, 24.0)
        within(f"{where}.battery.hours", b.hours, 0.0, 24.0)
        within(f"{where}.battery.jitter_hours", b.jitter_hours, 0.0, 24.0)
        for watts in b.user_w:
            within(f"{where}.battery.user_w", watts, 0.0, 1e6)
    _one_of(f"{where}.presence.kind", d.presence.kind, PRESENCES)
    within(f"{where}.cores", d.cores, 1, 1024)
    check_zone(d.time_zone, f"{where}.time_zone")
    within(f"{where}.presence.mean", d.presence.mean, 1e-9, 1.0)
    within(f"{where}.presence.peak_hour", d.presence.peak_hour, -24.0, 24.0)
    within(f"{where}.presence.swing", d.presence.swing, 1.0, 1e9)
    within(f"{where}.presence.share", d.presence.share, 0.0, 1.0)
    for key, least, most in (
        ("drop_out", 0.0, 1.0),
        ("crash", 0.0, 1.0),
        ("away_s", 0.0, 1e9),
        ("slow", 1e-9, 1e9),
    ):
        within(f"{where}.failures.{key}", getattr(d.failures, key), least, most)
    within(f"{where}.presence.period_hours", d.presence.period_hours, 1e-3, MOST_HOURS)
    for key in ("sample_s", "flops", "efficiency", "job_s"):
        within(f"{where}.speed.{key}", getattr(v, key) or 0.0, 0.0, 1e18)
    within(f"{where}.speed.spread", v.spread, 0.0, 3.0)
    within(f"{where}.speed.batch", v.batch, 1, 65_536)
    ways = [k for k in ("sample_s", "flops", "task") if getattr(v, k) is not None]
    if len(ways) != 1:
        raise ConfigError(f"{where}.speed", value=ways, limit="one of sample_s, flops, task")
    checked(d.limits)


def _named(key: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(key, value=name, limit="a letter, then letters, digits, - and _; at most 32, small")


def _one_of(key: str, value: str, known: tuple[str, ...] | list[str]) -> None:
    if value not in known:
        raise ConfigError(key, value=value, limit=", ".join(known))


def _once(what: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ConfigError(f"names of [[{what}]]", value=names, limit="each once")
