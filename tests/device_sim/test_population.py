"""The fleet in arrays is the fleet of the world, device by device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.body import Build, Cell
from laconic.device_sim.energy import Part
from laconic.device_sim.population import Fleet, History, lived
from laconic.device_sim.signals import DAY_S, HOUR_S
from laconic.device_sim.world import World
from laconic.errors import ConfigError
from laconic.node import Effect, Event, Will

PHONE = Build(0.3, 0.0, None, Cell(40_000.0, 4e-4, 0.05), {})
fleets = st.builds(
    Fleet,
    st.just(PHONE),
    st.integers(1, 5),
    st.integers(0, 2**32),
    st.lists(st.floats(0, 3), min_size=1, max_size=24).map(tuple),
    st.floats(0, 12),
    st.floats(0, DAY_S),
    st.floats(1e4, 4e4),
    st.floats(0, 9e3),
    st.floats(0.01, 0.5),
    st.floats(0.5, 1.0),
    st.floats(0.01, 0.6),
    st.floats(1, 4),
    st.floats(0, DAY_S),
)


class Idler:
    """A process that does nothing."""

    will: Will | None = None
    wake_at: float | None = None

    def handle(self, event: Event, now: float) -> list[Effect]:
        return []


def in_a_world(fleet: Fleet, seconds: float) -> World:
    world = World(seed=1, tracing=True)
    for d in range(fleet.devices):
        world.add(f"d{d}", Idler, body=fleet.body(d))
    world.run(seconds)
    world.now = seconds
    world.settle()
    return world


@settings(max_examples=25, deadline=None)
@given(fleets)
def test_arrays_and_events_agree(fleet: Fleet) -> None:
    seconds = 3.3 * DAY_S
    found, world = lived(fleet, seconds), in_a_world(fleet, seconds)
    assert found.imbalance < 1e-9
    for d in range(fleet.devices):
        body = world.host(f"d{d}").body
        assert body
        # A host of the world starts a microsecond after it may.
        near: dict[str, Any] = {"rel": 1e-9, "abs": 1e-3 if found.deaths[d] else 1e-6}
        assert found.energy_j[d] == pytest.approx(body.energy_j, **near)
        parts = (found.idle_j, found.user_j, found.self_discharge_j, found.charged_j)
        names = (Part.IDLE, Part.USER, Part.SELF_DISCHARGE, Part.CHARGED)
        for ours, part in zip(parts, names, strict=True):
            assert ours[d] == pytest.approx(body.ledger[part], **near)
        assert found.on[d] == body.on
        died = sum(line.endswith(f"d{d} empty") for line in world.trace)
        assert found.deaths[d] == died


def test_devices_that_run_empty_agree_too() -> None:
    fleet = Fleet(
        PHONE, 20, 7, (0.0, 4.0), charger_w=2.0, charger_length_s=3 * HOUR_S, charger_jitter_s=1000.0
    )
    found, world = lived(fleet, 6 * DAY_S), in_a_world(fleet, 6 * DAY_S)
    assert found.deaths.sum() > 40
    died = [sum(line.endswith(f" d{d} empty") for line in world.trace) for d in range(20)]
    assert found.deaths.tolist() == died


def test_the_hours_show_the_swing() -> None:
    found: History = lived(Fleet(PHONE, 5000, 3, mean_available=0.3, charger_w=20.0), 2 * DAY_S)
    assert len(found.available) == 49
    day = found.available[24:48]
    assert day.max() / day.min() == pytest.approx(4.0, rel=0.25)
    assert day.mean() == pytest.approx(0.3, abs=0.02)
    assert int(np.argmax(day)) in (2, 3, 4)
    assert found.charging[24:28].min() > 0.95
    assert found.charging[36:44].max() < 0.01


def test_availability_in_arrays_is_that_of_each_device() -> None:
    fleet = Fleet(PHONE, 300, 5, charger_w=20.0)
    found = lived(fleet, DAY_S)
    for hour in (0, 5, 13, 24):
        alone = sum(fleet.sessions(d).at(hour * HOUR_S)[0] for d in range(300))
        assert found.available[hour] * 300 == pytest.approx(alone)


@pytest.mark.parametrize(
    "wrong",
    [
        {"build": Build()},
        {"least_charge": 0.0},
        {"most_charge": 1.5},
        {"swing": 0.1},
        {"charger_jitter_s": 1e5},
    ],
)
def test_habits_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Fleet(**{"build": PHONE, "devices": 1, "seed": 0, **wrong})
