"""Two fleets on one broker, devices that come late, settings that change: traces of faults that happened."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet import Fleet, LinearLearner

from laconic.coordinator.campaign import Campaign
from laconic.coordinator.engine import CoordinatorEngine
from laconic.device_sim.world import World
from laconic.edge_sdk.engine import DeviceEngine, DeviceSettings
from laconic.edge_sdk.policy import Limits
from laconic.edge_sdk.sensors import Readings


def late_device(world: World, name: str, at_s: float, limits: Limits | None = None) -> None:
    sensors = Wire(world, name)
    settings = DeviceSettings(name, retry_s=2.0, chunk_bytes=512, limits=limits or Limits())
    world.add(name, lambda: DeviceEngine(settings, LinearLearner(77), sensors), start_s=at_s)


class Wire:
    """The bytes that the world has counted for a host."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name

    def worked(self, seconds: float) -> None:
        """Nothing is counted."""

    def read(self, now: float) -> Readings:
        up, down = self._world.bytes_of(self._name)
        return Readings(bytes_up=up, bytes_down=down)


def engine(world: World, name: str) -> DeviceEngine:
    node = world.node(name)
    assert isinstance(node, DeviceEngine)
    return node


def newest(world: World, name: str = "coordinator") -> str:
    node = world.node(name)
    assert isinstance(node, CoordinatorEngine)
    return node.courses["default"].registry.current.name


def test_two_coordinators_on_one_broker_do_not_answer_for_each_other() -> None:
    """Recorded: each rejected the other's updates, which were sent again and so counted twice."""
    fleet = Fleet(devices=2, rounds=4)
    world = World()
    for cohort in ("a", "b"):
        campaign = replace(fleet.campaign(), cohort=cohort, fleet=cohort)

        def coordinator(campaign: Campaign = campaign) -> CoordinatorEngine:
            return CoordinatorEngine([(campaign, fleet.subject())])

        world.add(f"coordinator-{cohort}", coordinator)
        for i in range(2):
            settings = DeviceSettings(f"{cohort}{i}", cohort=cohort, retry_s=2.0)
            world.add(
                f"{cohort}{i}", lambda s=settings, i=i: DeviceEngine(s, LinearLearner(i)), start_s=0.1 * i
            )
    world.run(600.0)
    kinds = [(who, note.kind) for _, who, note in world.notes]
    assert not [k for k in kinds if k[1] in ("rejected", "dropped", "late")]
    for cohort in ("a", "b"):
        assert kinds.count((f"coordinator-{cohort}", "committed")) == 8
        assert [kinds.count((f"{cohort}{i}", "committed")) for i in range(2)] == [4, 4]


@pytest.mark.parametrize("keep_versions", [1, 2, 4, 16])
def test_whoever_comes_late_gets_the_newest_model(keep_versions: int) -> None:
    """Recorded: further behind than the versions that are kept, a device asked for ever for what was gone."""
    fleet = Fleet(devices=2, rounds=20, keep_versions=keep_versions)
    world = fleet.world()
    world.at(3.0, lambda: world.cut("d1", 100.0))
    fleet.run(world, 300.0)
    late_device(world, "newcomer", world.now + 1.0)
    world.run(world.now + 200.0)
    for name in ("d0", "d1", "newcomer"):
        assert engine(world, name).model.name == newest(world), name


@pytest.mark.parametrize(("before", "after"), [(2, 16), (16, 2), (4, 5)])
def test_the_number_of_kept_versions_may_change(before: int, after: int) -> None:
    """Recorded: more versions were promised than there were."""
    fleet = Fleet(devices=2, rounds=8, keep_versions=before)
    world = World()
    store = world.add("coordinator", fleet.coordinator)
    for i in range(2):
        world.add(f"d{i}", lambda i=i: fleet.device(i))
    fleet.run(world)
    longer = replace(fleet, rounds=10, keep_versions=after)
    again = World()
    copy = again.add("coordinator", longer.coordinator)
    copy.write({key: store.get(key) for key in list(store.keys(""))})
    for i in range(2):
        again.add(f"d{i}", lambda i=i: longer.device(i))
    longer.run(again)
    late_device(again, "newcomer", again.now + 1.0)
    again.run(again.now + 200.0)
    for name in ("d0", "d1", "newcomer"):
        assert engine(again, name).model.name == newest(again), name
    if after < before:
        assert len(list(copy.keys("c/default/weights/"))) == after
        assert len(list(copy.keys("c/default/delta/"))) <= after


def test_a_days_limit_bounds_what_is_fetched() -> None:
    """Recorded: a new device fetched a whole model that its owner's limit did not allow."""
    fleet = Fleet(devices=2, rounds=12, keep_versions=4)
    world = fleet.world()
    fleet.run(world)
    late_device(world, "poor", world.now + 1.0, Limits(max_bytes_per_day=2_000))
    late_device(world, "rich", world.now + 1.0, Limits(max_bytes_per_day=100_000))
    world.run(world.now + 100.0)
    assert engine(world, "rich").model.name == newest(world)
    assert engine(world, "poor").model.version == 0
    whys = [
        note.fields["why"] for _, who, note in world.notes if who == "poor" and note.kind == "not fetched"
    ]
    assert "budget" in whys
