"""Budgets in a whole fleet: what is allowed is never exceeded by a byte, by name or by a cohort's offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fleet import BUNDLE, Fleet, LinearLearner

from laconic.budget import calendar
from laconic.coordinator.budgets import Budget, Group
from laconic.device_sim.world import World
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.power import ModelledPower
from laconic.edge_sdk.sensors import NoSensors, Readings
from laconic.node import Connected, Received, Started, Subscribe, Unsubscribe
from laconic.protocol import topics
from laconic.protocol.messages import Allowance, Offer, encode
from laconic.storage import MemoryStore
from laconic.transport.link import WireBytes

DAY = 86_400.0
ZONES = ("UTC", "Asia/Kathmandu", "-05:00")


class Wire:
    """What the world counts for a device, since its process began; joules by profile."""

    def __init__(self, world: World, name: str, *, metered: bool = False) -> None:
        began = world.bytes_of(name)
        self.power = ModelledPower(
            "rpi_4b",
            "wifi_2012",
            lambda: WireBytes(world.bytes_of(name)[0] - began[0], world.bytes_of(name)[1] - began[1], True),
            metered=metered,
        )

    def worked(self, seconds: float) -> None:
        self.power.worked(seconds)

    def read(self, now: float) -> Readings:
        return self.power.read(now)


def run(
    budget: Budget, *, targeted: bool, days: int = 3, devices: int = 6, limits: Limits | None = None,
    disturb: Callable[[World], None] = lambda world: None,
) -> tuple[World, dict[str, list[int]]]:  # fmt: skip
    """A fleet with twelve rounds a day; the bytes of every device at each of its midnights."""
    fleet = Fleet(
        devices=devices, rounds=12 * days, targeted=targeted, deadline_s=300.0, interval_s=DAY / 12,
        min_devices=1,
    )  # fmt: skip
    campaign = fleet.campaign
    fleet.campaign = lambda: replace(campaign(), budget=budget)  # type: ignore[method-assign]
    world = World()

    def device(i: int) -> DeviceEngine:
        name = f"d{i}"
        settings = DeviceSettings(name, zone=ZONES[i % 3], limits=limits or Limits(), retry_s=2.0)
        return DeviceEngine(settings, fleet.learner(i), Wire(world, name, metered=i % 2 == 0))

    fleet.device = device  # type: ignore[method-assign]
    fleet.world(world)
    counts: dict[str, list[int]] = {f"d{i}": [0] for i in range(devices)}
    for i in range(devices):
        at = 0.0
        while (at := calendar.day_ends(at, calendar.zone_of(ZONES[i % 3]))) <= days * DAY:
            name = f"d{i}"
            world.at(at, lambda name=name: counts[name].append(sum(world.bytes_of(name))))
    disturb(world)
    world.run(days * DAY)
    for name, found in counts.items():
        found.append(sum(world.bytes_of(name)))
    return world, counts


def worked(world: World, name: str) -> int:
    return sum(h == "coordinator" and n.kind == "committed" and n.fields["device"] == name
               for _, h, n in world.notes)  # fmt: skip


@pytest.mark.parametrize("targeted", [False, True], ids=["cohort", "targeted"])
def test_no_byte_goes_over_a_day(targeted: bool) -> None:
    budget = Budget(group=[Group(devices="d[0-2]", bytes_per_day=10_000)])
    world, counts = run(budget, targeted=targeted)
    for i in range(6):
        spent = np.diff(counts[f"d{i}"])
        if i < 3:
            assert spent.max() <= 10_000
            assert 3 <= worked(world, f"d{i}") < 30, "something every day, not everything"
        else:
            assert spent.max() > 10_000
            assert worked(world, f"d{i}") >= 30


@pytest.mark.parametrize("targeted", [False, True], ids=["cohort", "targeted"])
def test_no_byte_goes_over_a_day_with_broken_links_and_kills(targeted: bool) -> None:
    rng = np.random.default_rng(3)

    def disturb(world: World) -> None:
        for at in rng.uniform(0, 3 * DAY, 30).tolist():
            name = f"d{rng.integers(6)}"
            world.at(at, lambda name=name: world.cut(name, 20.0))
        for round_number in range(1, 35, 3):
            name = f"d{rng.integers(6)}"
            # In the middle of a round's messages.
            world.at(
                round_number * DAY / 12 + float(rng.uniform(0.5, 2.0)), lambda name=name: world.crash(name)
            )

    budget = Budget(bytes_per_day=16_000, metered_bytes_per_month=30_000)
    world, counts = run(budget, targeted=targeted, disturb=disturb)
    for i in range(6):
        spent = np.diff(counts[f"d{i}"])
        assert spent.max() <= 16_000
        if i % 2 == 0:
            assert counts[f"d{i}"][-1] <= 30_000
        assert worked(world, f"d{i}") >= 3


def test_the_owner_is_obeyed_whatever_the_coordinator_allows() -> None:
    world, counts = run(Budget(), targeted=False, limits=Limits(max_bytes_per_day=12_000))
    for i in range(6):
        assert np.diff(counts[f"d{i}"]).max() <= 12_000
        assert worked(world, f"d{i}") >= 2


@pytest.mark.parametrize("targeted", [False, True], ids=["cohort", "targeted"])
def test_nobody_works_in_its_quiet_hours_or_waits_in_vain(targeted: bool) -> None:
    world, _ = run(Budget(quiet_hours="20:00-08:00"), targeted=targeted)
    trained = [(t, h) for t, h, n in world.notes if n.kind == "training"]
    assert len(trained) >= 6 * 10
    for t, host in trained:
        zone = calendar.zone_of(ZONES[int(host[1:]) % 3])
        assert not calendar.quiet(t, zone, 20 * 60, 8 * 60)


def test_joules_are_kept_by_the_day() -> None:
    """360 samples a task: 18 J by the prior, and 38 for a radio of which nothing is known."""
    world, _ = run(Budget(group=[Group(devices="d0", joules_per_day=90.0)]), targeted=True, days=1)
    assert worked(world, "d0") > 0
    poor, _ = run(Budget(group=[Group(devices="d0", joules_per_day=50.0)]), targeted=True, days=1)
    assert worked(poor, "d0") == 0, "less than its first task is foretold to cost"
    assert worked(poor, "d1") == worked(world, "d1") > 0


@pytest.mark.parametrize("spent", [2_000, 9_500])
def test_who_cannot_pay_for_the_newest_model_hears_no_more_of_it(spent: int) -> None:
    """Recorded: a device without a model heard of each new version after its allowance was spent."""

    class Gauge(NoSensors):
        def read(self, now: float) -> Readings:
            return Readings(bytes_up=spent)

    device = DeviceEngine(DeviceSettings("d0"), LinearLearner(0), Gauge())
    for event in (Started(MemoryStore()), Connected()):
        device.handle(event, 1_000.0)
    a = Allowance(max_bytes=10_000 if spent > 9_000 else 7_500)
    word = Offer("0" * 16, 1, "1" * 16, 7, BUNDLE, work=False, allowances=[a])
    effects = device.handle(Received(topics.cohort_model("default"), encode(word)), 1_001.0)
    gone = {f for e in effects if isinstance(e, Unsubscribe) for f in e.filters}
    assert topics.cohort_model("default") in gone
    assert not any(isinstance(e, Subscribe) for e in effects)
