"""A scenario's world, set up: the production coordinator and devices on their hosts, and who listens."""

from __future__ import annotations

from typing import Final

from laconic.coordinator.campaign import Campaign
from laconic.coordinator.engine import CoordinatorEngine
from laconic.device_sim.learning.workshop import Workshop
from laconic.device_sim.scenario.campaigning import subject_of
from laconic.device_sim.scenario.drift import Drift, Today
from laconic.device_sim.scenario.examples import Examples
from laconic.device_sim.scenario.fleet import Device, devices_of
from laconic.device_sim.scenario.losses import Losses
from laconic.device_sim.scenario.recorder import COORDINATOR, Recorder
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.sensors import SimSensors
from laconic.device_sim.signals import HOUR_S
from laconic.device_sim.world import Connection, World
from laconic.edge_sdk.engine import DeviceEngine
from laconic.edge_sdk.learner import Learner
from laconic.edge_sdk.records import restore
from laconic.node import Node

_BACKBONE: Final = Connection(0.001, 1e8, 1e8)
"""The coordinator's own link."""


class Stage:
    """The world of a run, with everybody in it."""

    def __init__(
        self, scenario: Scenario, campaign: Campaign, examples: Examples, workshop: Workshop
    ) -> None:
        """Raises `ConfigError` for devices, data or a bundle that do not go with the settings."""
        s = scenario.settings
        fleet = list(devices_of(s, scenario.folder))
        self.names = [device.name for device in fleet]
        self.world = world = World(seed=s.seed, tracing=False, executor=workshop.executor)
        world.now = s.start_hour * HOUR_S
        self._start_hour = s.start_hour
        self._bundle, trainer = workshop.trainer.bundle, workshop.trainer
        self.drift = drift = Drift(s.data.drift, examples, world.now)
        today = Today(examples.held_out, drift)
        subject = subject_of(campaign, workshop, lambda: today.at(world.now))
        world.add(
            COORDINATOR,
            lambda: CoordinatorEngine([(campaign, subject)]),
            connection=_BACKBONE,
            start_s=world.now,
        )
        self.losses: Losses | None = None
        if s.record.losses:
            self.losses = Losses(
                trainer, examples.devices, lambda part: drift.seen(part, drift.step(world.now))
            )
        self.kinds: dict[str, tuple[str, int]] = {}
        """By device: its class, and how many examples it has."""
        for device, part in zip(fleet, examples.devices, strict=True):
            learner = drift.learner(trainer, part, lambda: world.now)
            if self.losses is not None:
                learner = self.losses.learner(device.name, learner)
            _add(world, device, learner)
            self.kinds[device.name] = (device.kind, len(part.y))
        self.recorder = Recorder(world, self.kinds, self.losses)

    @property
    def finished(self) -> bool:
        """Whether the coordinator has done its rounds, or reached its goal."""
        node: Node | None = self.world.node(COORDINATOR)
        return isinstance(node, CoordinatorEngine) and node.finished

    def private(self) -> dict[str, bytes]:
        """What devices' learners have left in their stores, whether the devices run just now or not."""
        stores = {name: self.world.host(name).store for name in self.names}
        bundle = self._bundle
        return {
            name: restore(store, bundle.schema, bundle=bundle.hash[:16], initial=bundle.initial).private
            for name, store in stores.items()
            if store.get("private") is not None
        }

    def steps(self) -> list[int]:
        """In which step of the drift each round was when it was over, from round 0."""
        hours = {r.round: r.hours for r in self.recorder.rounds} | self.recorder.ends
        found = [self.drift.step(self._start_hour * HOUR_S)]
        for number in range(1, self.recorder.held + 1):
            at = hours.get(number)
            found.append(found[-1] if at is None else self.drift.step((self._start_hour + at) * HOUR_S))
        return found


def _add(world: World, device: Device, learner: Learner) -> None:
    def make() -> DeviceEngine:
        return DeviceEngine(
            device.settings, learner, SimSensors(world.host(device.name), metered=device.metered)
        )

    world.add(
        device.name,
        make,
        connection=device.connection,
        speed=device.speed,
        start_s=device.start_s,
        body=device.body,
        presence=device.presence,
        failures=device.failures,
    )
