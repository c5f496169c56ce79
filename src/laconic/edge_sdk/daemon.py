"""Devices as a process: their configuration files, one event loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from laconic.config import BrokerSection, Section, SecuritySection, load, read_file, read_secret, within
from laconic.edge_sdk.client import Device
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.power import ModelledPower, WireOnly
from laconic.node import Note
from laconic.protocol.chunks import DEFAULT_CHUNK_BYTES
from laconic.runtime import Bundle, Trainer, read_arrays
from laconic.transport.mqtt import address_of
from laconic.transport.process import Print, drive


class PowerSection(Section, frozen=True):
    """`[power]`: profiles by which joules are modelled; without it only bytes are counted."""

    board: str | None = None
    radio: str = "wifi_2012"
    battery_wh: float | None = None
    charge: float = 1.0
    """State of charge at the start, 0 to 1."""
    slowdown: float = 1.0
    """How many times longer the board computes than this machine."""


class DeviceConfig(Section, frozen=True):
    """A device's configuration file."""

    name: str
    bundle: str
    data: str
    """`.npz` with `x` and `y`: this device's own examples."""
    cohort: str = "default"
    store: str | None = None
    """The device's database; by default the name with `.db`."""
    metered: bool = False
    time_zone: str = "UTC"
    """Where its days and months begin: a name of the tz database, or an offset such as +05:30."""
    threads: int = 1
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    retry_s: float = 10.0
    """How long to wait for an answer before asking again; doubles up to five minutes."""
    broker: BrokerSection = BrokerSection()
    security: SecuritySection = SecuritySection()
    limits: Limits = Limits()
    power: PowerSection = PowerSection()


async def run(paths: Sequence[Path], environment: Mapping[str, str], show: Print) -> None:
    """Run the devices that `paths` configure, in one process, until a signal.

    Devices with the same bundle share its sessions. Raises `ConfigError`, `WireError`, `ModelError`,
    `StorageError` for what cannot be used.
    """
    trainers: dict[tuple[Path, int], Trainer] = {}
    devices = [_device(path, environment, show, trainers) for path in paths]
    try:
        await drive([device.driver for device in devices])
    finally:
        for device in devices:
            device.close()
            show(device.name, Note("stopped", device.totals()), time.time())


def _device(
    path: Path, environment: Mapping[str, str], show: Print, trainers: dict[tuple[Path, int], Trainer]
) -> Device:
    config, folder = load(DeviceConfig, path, environment, who="device"), path.resolve().parent
    limits = config.limits
    within("limits.min_charge", limits.min_charge, 0.0, 1.0)
    for period in ("day", "month"):
        for kind in ("", "metered_"):
            limit = f"max_{kind}bytes_per_{period}"
            within(f"limits.{limit}", getattr(limits, limit) or 0, 0, 2**48)
    within("limits.max_joules_per_day", limits.max_joules_per_day or 0.0, 0.0, 1e15)
    within("threads", config.threads, 1, 1024)
    file = (folder / config.bundle, config.threads)
    if file not in trainers:
        trainers[file] = Trainer(Bundle.read(read_file(file[0], "bundle")), threads=config.threads)
    power, key = config.power, config.security.fleet_key_file
    sensors = (
        partial(WireOnly, metered=config.metered)
        if power.board is None
        else partial(
            ModelledPower,
            power.board,
            power.radio,
            battery_wh=power.battery_wh,
            charge=power.charge,
            slowdown=power.slowdown,
            metered=config.metered,
        )
    )

    def on_note(note: Note, now: float) -> None:
        show(config.name, note, now)

    return Device(
        config.name,
        broker=address_of(config.broker, folder),
        bundle=trainers[file],
        data=read_arrays(folder / config.data),
        store=folder / (config.store or f"{config.name}.db"),
        cohort=config.cohort,
        limits=limits,
        time_zone=config.time_zone,
        sensors=sensors,
        fleet_key=None if key is None else read_secret(folder / key, "fleet key file"),
        chunk_bytes=config.chunk_bytes,
        retry_s=config.retry_s,
        on_note=on_note,
    )
