"""One federated run in the simulator's world: the same engines and files, no processes, sockets or waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from msgspec.structs import asdict

from laconic import __version__
from laconic.config import load, read_file
from laconic.coordinator.configuration import CoordinatorConfig, campaigns_of
from laconic.coordinator.daemon import subject_of
from laconic.coordinator.engine import CoordinatorEngine
from laconic.demo.data import Split
from laconic.demo.results import FleetResult
from laconic.demo.settings import Settings
from laconic.demo.site import Site, write_files
from laconic.demo.watch import Progress, Watch, result_of
from laconic.device_sim.computing import Speed, speed_by_flops
from laconic.device_sim.links import Connection
from laconic.device_sim.wire import Wire
from laconic.device_sim.world import World
from laconic.edge_sdk.daemon import Configured, sensors_of
from laconic.edge_sdk.data import source_of
from laconic.edge_sdk.data.sections import examples_of
from laconic.edge_sdk.engine import DeviceEngine
from laconic.edge_sdk.learner import OnnxLearner
from laconic.edge_sdk.sensors import Sensors
from laconic.edge_sdk.settings import DeviceSettings
from laconic.errors import ConfigError, TransportError
from laconic.profiles import board
from laconic.runtime import Bundle, Trainer
from laconic.transport.link import WireBytes

_BEGIN_S: Final = 1.7e9
"""The world's clock at first, seconds since 1970: moments take as many bytes in messages as real ones."""
_LATENCY_S: Final = 0.001
_BYTES_PER_S: Final = 1e8
_FLOPS: Final = 3.0e6
"""Of a training sample: three times a forward pass, whose 0.5 million products and sums are two each."""
_EFFICIENCY: Final = 0.25
"""Assumed: how near training in small batches comes to Linpack's rate."""
_COORDINATOR: Final = Speed(job_s=0.01)
_SETTLE_S: Final = 1.0


def simulate_fleet(
    name: str, site: Site, split: Split, settings: Settings, show: Callable[[Progress], None]
) -> FleetResult:
    """As `laconic.demo.fleet.run_fleet`, under a virtual clock, whose seconds are those of the result.

    Raises `TransportError` when the rounds do not come to their end.
    """
    names = site.devices(len(split.devices))
    write_files(site, name, split, settings)
    folder = site.folder / name
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        world = World(tracing=False, executor=executor)
        world.now = _BEGIN_S
        progress = Progress(
            name, settings.rounds, {n: Watch() for n in names}, clock=lambda: world.now, began=_BEGIN_S
        )
        coordinator = _add_coordinator(world, folder)
        devices = _Devices(world, folder)
        for device in names:
            devices.add(device)
        _follow(world, progress, settings, show)
        world.run(world.now + _SETTLE_S)
        for device in names:
            world.leave(device)
            progress.hear({"who": device, "kind": "stopped", **devices.totals(device)})
        world.run(world.now + _SETTLE_S)
        world.leave(coordinator)
    up, down = world.bytes_of(coordinator)
    progress.hear({"who": coordinator, "kind": "stopped", "bytes_up": up, "bytes_down": down})
    return result_of(progress, split)


def _follow(world: World, progress: Progress, settings: Settings, show: Callable[[Progress], None]) -> None:
    """Until the rounds are over and every device holds the last version."""
    heard = 0

    def over() -> bool:
        nonlocal heard
        versions = len(progress.versions)
        for _, who, note in world.notes[heard:]:
            progress.hear({**note.fields, "who": who, "kind": note.kind})
        heard = len(world.notes)
        if len(progress.versions) > versions:
            show(progress)
        newest = progress.versions[-1]["version"] if progress.versions else None
        return progress.finished and all(w.version == newest for w in progress.devices.values())

    longest_s = settings.deadline_s * (settings.rounds + 1)
    world.run(world.now + longest_s, stop=over)
    if not over():
        raise TransportError(f"run {progress.name} is not over after {longest_s:.0f} s of the world's time")


def _add_coordinator(world: World, folder: Path) -> str:
    """The host of the coordinator that the folder configures; returns its name."""
    config = load(CoordinatorConfig, folder / "coordinator.toml", {}, who="coordinator")
    campaigns = [(c, subject_of(c, section, folder)) for section, c in campaigns_of(config, folder)]
    name = f"coordinator-{config.fleet}"
    world.add(
        name,
        lambda: CoordinatorEngine(campaigns, max_devices=config.max_devices),
        connection=_connection(config.broker.keep_alive_s),
        speed=_COORDINATOR,
        start_s=world.now,
    )
    return name


class _Devices:
    """The devices of one world, which share a bundle's sessions."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder
        self._trainers: dict[Path, Trainer] = {}
        self._sensors: dict[str, Sensors] = {}

    def add(self, name: str) -> None:
        """A host for the device that the file of its name configures. Raises `ConfigError` without data."""
        config = Configured.read(self._folder / f"{name}.toml", {}).config
        if config.data is None or config.power.board is None:
            raise ConfigError("data and power.board", value=(config.data, config.power.board))
        file = self._folder / config.bundle
        if file not in self._trainers:
            self._trainers[file] = Trainer(Bundle.read(read_file(file, "bundle")), threads=config.threads)
        trainer = self._trainers[file]
        settings = DeviceSettings(
            config.name,
            cohort=config.cohort,
            limits=config.limits,
            zone=config.time_zone,
            chunk_bytes=config.chunk_bytes,
            retry_s=config.retry_s,
            software=__version__,
        )
        source = source_of(examples_of(config.data, self._folder), trainer.bundle.manifest)
        sensors = sensors_of(config, alone=False)(lambda: WireBytes(*self._world.bytes_of(name), True))
        self._sensors[name] = sensors
        self._world.add(
            name,
            lambda: DeviceEngine(settings, OnnxLearner(trainer, source), sensors),
            connection=_connection(config.broker.keep_alive_s),
            speed=speed_by_flops(board(config.power.board), _FLOPS, cores=1, efficiency=_EFFICIENCY),
            start_s=self._world.now,
        )

    def totals(self, name: str) -> dict[str, object]:
        """As `laconic.edge_sdk.client.Device.totals`."""
        return asdict(self._sensors[name].read(self._world.now))


def _connection(keep_alive_s: float) -> Connection:
    return Connection(_LATENCY_S, _BYTES_PER_S, _BYTES_PER_S, wire=Wire(keep_alive_s=keep_alive_s))
