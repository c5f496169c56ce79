"""Devices by configuration file: a process of their own, or part of a program that brings data and hooks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from laconic.config import BrokerSection, Section, SecuritySection, load, read_file, read_secret, within
from laconic.edge_sdk.client import Device
from laconic.edge_sdk.data import Examples
from laconic.edge_sdk.data.sections import DataSection, examples_of
from laconic.edge_sdk.hooks import NewModel, RoundDone, Skipped
from laconic.edge_sdk.life import MakeSensors
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.power import ModelledPower, WireOnly
from laconic.edge_sdk.readers import Machine, Reader
from laconic.edge_sdk.readers import load as load_reader
from laconic.edge_sdk.readers.detect import detect
from laconic.errors import ConfigError
from laconic.node import Note
from laconic.protocol.chunks import DEFAULT_CHUNK_BYTES
from laconic.runtime import Bundle, Trainer
from laconic.transport.mqtt import address_of
from laconic.transport.process import Print, drive
from laconic.transport.supervision import Supervisor


class ReaderSection(Section, frozen=True):
    """`[[power.reader]]`: a reader besides those that the machine is found to have."""

    name: str
    """`ina219`, an entry point of the group `laconic.readers`, or `package.module:function`."""
    options: dict[str, object] = msgspec.field(default_factory=dict)


class PowerSection(Section, frozen=True):
    """`[power]`: where battery and joules come from."""

    source: Literal["auto", "machine", "model", "none"] = "auto"
    """`machine`: what this machine's readers tell, and by profiles what they do not; `model`: by profiles
    alone; `none`: bytes alone. `auto`: `machine` for the only device of its process, else `model` where there
    is a board, else `none`."""
    board: str | None = None
    radio: str | None = None
    battery_wh: float | None = None
    charge: float = 1.0
    """State of charge at the start, 0 to 1, of a battery that is modelled."""
    slowdown: float = 1.0
    """For a model: how many times longer the board computes than this machine."""
    reader: tuple[ReaderSection, ...] = ()


class DeviceConfig(Section, frozen=True):
    """A device's configuration file."""

    name: str
    bundle: str
    data: str | DataSection | None = None
    """This device's own examples: an `.npz` file, or a table; None for a program that brings its own."""
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
    checkpoint_s: float = 120.0
    """How much training a loss of power may cost."""
    broker: BrokerSection = BrokerSection()
    security: SecuritySection = SecuritySection()
    limits: Limits = Limits()
    power: PowerSection = PowerSection()


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration, and the folder that its paths start from."""

    config: DeviceConfig
    folder: Path

    @staticmethod
    def read(path: Path, environment: Mapping[str, str]) -> Configured:
        """Raises `ConfigError` for what cannot be used."""
        config = load(DeviceConfig, path, environment, who="device")
        within("threads", config.threads, 1, 1024)
        return Configured(config, path.resolve().parent)


async def run(paths: Sequence[Path], environment: Mapping[str, str], show: Print) -> None:
    """Run the devices that `paths` configure, in one process, until a signal.

    Devices with the same bundle share its sessions. Raises `ConfigError`, `DataError`, `WireError`,
    `ModelError`, `StorageError` for what cannot be used.
    """
    trainers: dict[tuple[Path, int], Trainer] = {}
    found = [Configured.read(path, environment) for path in paths]
    devices = []
    for it in found:
        show_it = partial(show, it.config.name)
        devices.append(_device(it, trainers, alone=len(found) == 1, on_note=show_it))
    supervisor = Supervisor.of(environment)
    supervisor.tell("READY=1", f"STATUS={', '.join(device.name for device in devices)}")
    alive = asyncio.ensure_future(supervisor.keep_alive())
    try:
        await drive([device.run_async() for device in devices], last=lambda: supervisor.tell("STOPPING=1"))
    finally:
        alive.cancel()
        for device in devices:
            show(device.name, Note("stopped", device.totals()), time.time())


def device_from_file(
    path: str | Path,
    *,
    data: Examples | None = None,
    busy: Callable[[], bool] = lambda: False,
    on_model: Callable[[NewModel], None] | None = None,
    on_round: Callable[[RoundDone], None] | None = None,
    on_skip: Callable[[Skipped], None] | None = None,
    on_note: Callable[[Note, float], None] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Device:
    """A device as `laconic device --config` would run it, for a program to run; arguments are `Device`'s.

    `data`: instead of the file's. Raises as `Device`, and `ConfigError` for a file that cannot be used.
    """
    return _device(
        Configured.read(Path(path), environment),
        {},
        alone=True,
        data=data,
        busy=busy,
        on_model=on_model,
        on_round=on_round,
        on_skip=on_skip,
        on_note=on_note,
    )


def _device(
    found: Configured,
    trainers: dict[tuple[Path, int], Trainer],
    *,
    alone: bool,
    data: Examples | None = None,
    busy: Callable[[], bool] = lambda: False,
    on_model: Callable[[NewModel], None] | None = None,
    on_round: Callable[[RoundDone], None] | None = None,
    on_skip: Callable[[Skipped], None] | None = None,
    on_note: Callable[[Note, float], None] | None = None,
) -> Device:
    config, folder = found.config, found.folder
    if data is None:
        if config.data is None:
            raise ConfigError("data", value="none", remedy="name the examples: see docs/configuration.md")
        data = examples_of(config.data, folder)
    file = (folder / config.bundle, config.threads)
    if file not in trainers:
        trainers[file] = Trainer(Bundle.read(read_file(file[0], "bundle")), threads=config.threads)
    key = config.security.fleet_key_file
    return Device(
        config.name,
        broker=address_of(config.broker, folder),
        bundle=trainers[file],
        data=data,
        store=folder / (config.store or f"{config.name}.db"),
        cohort=config.cohort,
        limits=config.limits,
        busy=busy,
        time_zone=config.time_zone,
        sensors=sensors_of(config, alone=alone),
        fleet_key=None if key is None else read_secret(folder / key, "fleet key file"),
        chunk_bytes=config.chunk_bytes,
        retry_s=config.retry_s,
        checkpoint_s=config.checkpoint_s,
        on_model=on_model,
        on_round=on_round,
        on_skip=on_skip,
        on_note=on_note,
    )


def sensors_of(config: DeviceConfig, *, alone: bool) -> MakeSensors:
    """What makes a device's sensors; `alone`: it is the only one of its process.

    Raises `ConfigError` for readers or profiles that do not exist.
    """
    power, source = config.power, config.power.source
    if source == "auto":
        # What a process takes cannot be told apart by devices.
        modelled = not alone or power.slowdown != 1.0
        source = "machine" if not modelled else "none" if power.board is None else "model"
    if source == "none":
        return partial(WireOnly, metered=config.metered)
    if source == "model":
        if power.board is None:
            raise ConfigError(
                "power.board", value="none", remedy="name a board, or take another power.source"
            )
        return partial(
            ModelledPower,
            power.board,
            power.radio or "wifi_2012",
            battery_wh=power.battery_wh,
            charge=power.charge,
            slowdown=power.slowdown,
            metered=config.metered,
        )
    return partial(
        Machine,
        readers=readers_of(power),
        board=power.board,
        radio=power.radio,
        battery_wh=power.battery_wh,
        charge=power.charge,
        metered=config.metered,
        threads=config.threads,
    )


def readers_of(power: PowerSection) -> list[Reader] | None:
    """The readers that a configuration names, before those of the machine; None: the machine's alone."""
    named = [load_reader(it.name, it.options) for it in power.reader]
    return [*named, *detect(battery_wh=power.battery_wh)] if named else None
