"""A process that is put away and taken back does not notice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import finished, fleet

from laconic.device_sim.body import Body, build, cell
from laconic.device_sim.parking import Parked
from laconic.device_sim.world import World
from laconic.edge_sdk.engine import DeviceEngine
from laconic.errors import LocalProtocolError
from laconic.profiles import board, radio

PI = build(board("rpi_4b"), radio("wifi_2012"), battery=cell(3000))


def played(awake: int | None, crash: int, cut_s: float) -> World:
    world = fleet(World(awake=awake), 3, 4, body=lambda i: Body(PI))
    world.crash_at_effect("d0", crash)
    world.at(cut_s, lambda: world.cut("d1", 3.0))
    world.run(600.0)
    world.settle()
    return world


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 3), st.integers(5, 60), st.floats(0, 20))
def test_a_world_that_keeps_few_processes_awake_is_the_same_world(
    awake: int, crash: int, cut_s: float
) -> None:
    whole, sparing = played(None, crash, cut_s), played(awake, crash, cut_s)
    assert sparing.trace == whole.trace
    assert finished(sparing)
    for i in range(3):
        ours, other = (w.host(f"d{i}") for w in (sparing, whole))
        assert {k: ours.store.get(k) for k in ours.store.keys()} == {  # noqa: SIM118
            k: other.store.get(k)
            for k in other.store.keys()  # noqa: SIM118
        }
        assert ours.body
        assert other.body
        assert ours.body.ledger.joules == other.body.ledger.joules


def test_those_who_wait_are_bytes() -> None:
    world = fleet(World(awake=5), 50, 1, min_devices=51)
    world.run(60.0)
    parked = [p for i in range(50) if isinstance(p := world.host(f"d{i}").process, Parked)]
    assert len(parked) >= 45
    assert max(p.size for p in parked) < 4096
    node = world.node("d0")
    assert isinstance(node, DeviceEngine)
    assert world.node("d0") is node, "it has been taken back"


def test_what_cannot_be_written_down_stays_awake() -> None:
    world = fleet(World(awake=0), 1, 1, min_devices=2)
    world.run(10.0)
    host, node = world.host("d0"), world.node("d0")
    assert isinstance(node, DeviceEngine)
    node.__dict__["itself"] = lambda: node
    with pytest.raises(LocalProtocolError, match="closure"):
        Parked(node)
    host.park()
    assert host.process is node
