"""Campaigns by the clock: nights, pauses, goals, and going on when more is asked for."""

from __future__ import annotations

from typing import Any

from chronicle import LoggedWorld, logged, settle, verify
from fleet import Fleet

from laconic.coordinator.engine import CoordinatorEngine
from laconic.coordinator.rounds import Phase
from laconic.coordinator.schedule import schedule_of
from laconic.device_sim.world import Connection

HOUR = 3600.0


def opened(world: LoggedWorld) -> list[float]:
    return [t for t, _, n in world.notes if n.kind == "opened"]


def coordinator(world: LoggedWorld) -> CoordinatorEngine:
    node = world.node("coordinator")
    assert isinstance(node, CoordinatorEngine)
    return node


def test_every_night_at_two_one_round() -> None:
    fleet = Fleet(rounds=3, schedule=schedule_of(start="02:00"))
    world = logged(fleet)
    settle(fleet, world, until_s=100 * HOUR)
    assert verify(fleet, world) == 9
    assert opened(world) == [2 * HOUR, 26 * HOUR, 50 * HOUR]


def test_in_a_window_rounds_follow_one_another_and_its_end_lets_the_last_one_finish() -> None:
    fleet = Fleet(
        rounds=40,
        interval_s=600.0,
        schedule=schedule_of(start="22:00", end="00:30", time_zone="Europe/Berlin"),
        # Training takes 12 minutes: the round that opens before the end closes after it.
        sample_s=lambda i: 2.0,
    )
    fleet.deadline_s = 1800.0
    world = logged(fleet)
    world.run(72 * HOUR)
    starts = opened(world)
    assert len(starts) > 20
    # Berlin is an hour ahead of UTC in January 1970.
    assert all(21 * HOUR <= t % (24 * HOUR) < 23.5 * HOUR for t in starts)
    closed = [t for t, _, n in world.notes if n.kind == "closed"]
    assert any(23.5 * HOUR < t % (24 * HOUR) < 23.9 * HOUR for t in closed)
    assert coordinator(world).courses["default"].round.phase is Phase.PAUSED


def test_a_coordinator_that_was_down_at_two_makes_up_for_it() -> None:
    fleet = Fleet(rounds=2, schedule=schedule_of(start="02:00"))
    world = LoggedWorld()
    world._restart_s = 4 * HOUR
    for name in ["coordinator"]:
        world.add(name, fleet.coordinator, connection=Connection(0.001, 1e8, 1e8))
    for i in range(3):
        world.add(f"d{i}", lambda i=i: fleet.device(i))
    world.at(HOUR, lambda: world.crash("coordinator"))
    world.run(40 * HOUR)
    assert [round(t / HOUR, 2) for t in opened(world)] == [5.0, 26.0]


def run_on(fleet: Fleet, world: LoggedWorld, **changes: Any) -> None:
    """Start the coordinator again with other settings, and let the campaign run."""
    for key, value in changes.items():
        setattr(fleet, key, value)
    world.crash("coordinator")
    world.run(world.now + 5.0)
    settle(fleet, world, until_s=world.now + 600.0, rest_s=400.0)


def test_a_goal_ends_a_campaign_and_a_higher_one_continues_it() -> None:
    """The fleet's accuracy is 1 - distance to the truth."""
    fleet = Fleet(devices=4, rounds=60, until_accuracy=0.5)
    world = logged(fleet)
    settle(fleet, world)
    course = coordinator(world).courses["default"]
    assert course.registry.current.accuracy is not None
    first = course.round.number
    assert 1 < first < 30
    accuracies = [n.fields["accuracy"] for _, _, n in world.notes if n.kind == "version"]
    assert [a >= 0.5 for a in accuracies] == [False] * (len(accuracies) - 1) + [True]  # type: ignore[operator]
    run_on(fleet, world)
    assert coordinator(world).courses["default"].round.number == first, (
        "restarted with the same goal, it stays over"
    )
    run_on(fleet, world, until_accuracy=0.8)
    assert first < coordinator(world).courses["default"].round.number < 60
    run_on(fleet, world, until_accuracy=None, rounds=20)
    verify(fleet, world)


def test_paused_it_finishes_the_open_round_and_goes_on_when_it_is_allowed() -> None:
    fleet = Fleet(rounds=4, deadline_s=30.0)
    world = logged(fleet)
    world.run(0.9)
    assert len(opened(world)) == 1
    fleet.schedule = schedule_of(paused=True)
    world.crash("coordinator")
    world.run(100.0)
    course = coordinator(world).courses["default"]
    assert (course.round.phase, course.round.number, course.wake_at) == (Phase.PAUSED, 2, None)
    assert not coordinator(world).finished
    run_on(fleet, world, schedule=schedule_of())
    assert verify(fleet, world) == 12
