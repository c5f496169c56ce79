"""Production engines in a world that accounts for every joule and byte."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import finished, fleet

from laconic.device_sim.body import Body, Build, Cell, build, cell
from laconic.device_sim.computing import Failures
from laconic.device_sim.energy import Part
from laconic.device_sim.medium import Medium
from laconic.device_sim.radio import compiled
from laconic.device_sim.sensors import SimSensors
from laconic.device_sim.signals import HOUR_S, Constant, Daily, Nightly, Recorded, Signal, Synthetic
from laconic.device_sim.wire import Tls, Wire
from laconic.device_sim.world import Connection, World
from laconic.edge_sdk.engine import DeviceEngine
from laconic.profiles import board, radio

RADIO = compiled(radio("lte_2012"))
PI = build(board("rpi_4b"), radio("lte_2012"), battery=cell(3000))


def lte(wire: Wire | None = None, **changes: object) -> Connection:
    return Connection(
        0.05,
        RADIO.up_bytes_per_s,
        RADIO.down_bytes_per_s,
        wire=wire,
        **changes,  # type: ignore[arg-type]
    )


def energies(world: World, devices: int) -> list[list[float]]:
    world.settle()
    found = []
    for i in range(devices):
        body = world.host(f"d{i}").body
        assert body
        found.append(list(body.ledger.joules))
    return found


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(Tls),
    st.floats(0, 0.1),
    st.floats(0, 0.2),
    st.sampled_from([None, Constant(3.0), Nightly(6.0, 1, 0.0), Recorded((0.0, 60.0), (0.0, 9.0), 90.0)]),
    st.floats(0.001, 1),
    st.booleans(),
    st.floats(0, 0.3),
)
def test_energy_is_conserved_whatever_happens(
    tls: Tls, loss: float, jitter: float, charger: Signal | None, charge: float, shared: bool, fails: float
) -> None:
    medium = Medium(3e5, 6e5) if shared else None
    world = fleet(
        World(seed=1),
        connection=lambda i: lte(Wire(tls), loss=loss, jitter_s=jitter, medium=medium),
        body=lambda i: Body(
            PI, charge=charge / (i + 1), charger=charger or Constant(0.0), user=Daily((0.2, 1.5))
        ),
        min_devices=1,
        failures=Failures(drop_out=fails, crash=fails, away_s=30.0),
    )
    world.run(HOUR_S)
    world.settle()
    for i in range(3):
        body = world.host(f"d{i}").body
        assert body
        assert body.t == world.now
        assert body.imbalance() < 1e-9
        assert body.ledger[Part.SELF_DISCHARGE] > 0
        assert (world.node(f"d{i}") is not None) <= body.on


def test_the_same_seed_gives_the_same_world() -> None:
    def played(seed: int) -> tuple[list[str], list[list[float]]]:
        world = fleet(
            World(seed=seed),
            connection=lambda i: lte(Wire(Tls.MUTUAL), loss=0.05, jitter_s=0.1),
            body=lambda i: Body(PI, charge=0.5),
            failures=Failures(drop_out=0.2, crash=0.1, away_s=10.0),
        )
        world.run(HOUR_S)
        return world.trace, energies(world, 3)

    assert played(3) == played(3)
    assert played(3) != played(4)


def test_a_device_reads_its_battery_and_tells_the_coordinator() -> None:
    world = fleet(World(), connection=lambda i: lte(Wire()), body=lambda i: Body(PI, charge=0.8))
    world.run(HOUR_S, stop=lambda: finished(world))
    assert finished(world)
    host, engine = world.host("d0"), world.node("d0")
    assert isinstance(engine, DeviceEngine)
    readings = engine._sensors.read(world.now)
    body = host.body
    assert body
    assert readings.charge == body.charge
    assert (readings.bytes_up, readings.bytes_down) == world.bytes_of("d0")
    # Three rounds of 50 samples at .1 s, and half a second for each job, on one core.
    assert readings.joules_compute == pytest.approx((3 * 5.0 + host.jobs * 0.5) * 0.925, rel=1e-6)
    assert readings.joules_radio == body.ledger.radio > 12.0
    assert not readings.charging


def test_an_empty_battery_ends_the_process_and_a_charged_one_starts_it_again() -> None:
    small = Build(1.0, 0.5, RADIO, Cell(200.0, 1e-3, 0.5), {})
    charger = Recorded((0.0, 600.0, 1200.0), (0.0, 5.0, 5.0), 1e6)
    world = fleet(World(), 1, 40, body=lambda i: Body(small, charge=1.0, charger=charger), deadline_s=60.0)
    world.run(590.0)
    assert world.node("d0") is None
    told = [line.split(maxsplit=1) for line in world.trace if line.endswith("d0 empty")]
    assert len(told) == 1
    world.run(2000.0)
    assert world.node("d0") is not None
    assert [line for line in world.trace if line.endswith("d0 started")][1:], "it lives again"
    body = world.host("d0").body
    assert body
    assert body.imbalance() < 1e-9


def test_a_process_lives_while_its_owner_lets_it() -> None:
    world = fleet(World(), 2, 25, body=lambda i: Body(PI), min_devices=1, presence=Synthetic(5, 0.5, 1000.0))
    seen: list[tuple[bool, bool]] = []

    def look() -> None:
        there = world.host("d0").presence
        assert there
        seen.append((there.at(world.now)[0] > 0, world.node("d0") is not None))
        world.at(world.now + 33.0, look)

    world.at(33.0, look)
    world.run(5000.0)
    assert {there for there, _ in seen} == {True, False}
    assert all(there == runs for there, runs in seen)
    assert list(world.host("d0").store.keys()), "its disk stays"


def test_as_many_jobs_fail_as_was_said() -> None:
    world = fleet(
        World(seed=9), 6, 15, failures=Failures(drop_out=0.2, away_s=1.0), min_devices=1, deadline_s=20.0
    )
    world.run(20_000.0, stop=lambda: finished(world))
    jobs = sum(world.host(f"d{i}").jobs for i in range(6))
    vanished = sum(line.endswith(" vanished") for line in world.trace)
    assert jobs > 60
    assert vanished / jobs == pytest.approx(0.2, abs=0.1)


def test_who_is_away_stays_away_whoever_comes() -> None:
    away_s = 700.0
    world = fleet(
        World(seed=3),
        3,
        20,
        failures=Failures(drop_out=0.5, away_s=away_s),
        presence=Synthetic(5, 0.9, 100.0),
        min_devices=1,
        deadline_s=50.0,
    )
    world.run(20_000.0, stop=lambda: finished(world))
    gone: dict[str, float] = {}
    back = 0
    for time_s, name, what in (line.split(maxsplit=2) for line in world.trace):
        if what == "vanished":
            gone[name] = float(time_s)
        elif what == "started" and name in gone:
            back += 1
            assert float(time_s) >= gone.pop(name) + away_s - 1e-5
    assert back > 5


def test_a_slow_device_takes_its_factor_longer() -> None:
    def compute_s(slow: float) -> float:
        world = fleet(World(), 1, 1, body=lambda i: Body(PI), failures=Failures(slow=slow))
        world.run(HOUR_S, stop=lambda: finished(world))
        body = world.host("d0").body
        assert body
        return body.ledger[Part.COMPUTE]

    assert compute_s(7.0) == pytest.approx(7 * compute_s(1.0))


def test_a_link_that_goes_out_comes_back() -> None:
    outage = Recorded((0.0, 10.0, 20.0), (0.0, 1.0, 0.0), 30.0)
    world = fleet(World(), 2, 20, connection=lambda i: Connection(outage=outage))
    world.run(200.0)
    links = [line for line in world.trace if line.endswith("d0 connected")]
    assert len(links) == 8
    world.run(2000.0)
    assert finished(world)


def test_pings_keep_an_lte_radio_awake() -> None:
    """Nothing is to be done; a ping every 45 s costs a promotion and a tail."""

    def radio_joules(keep_alive_s: float | None) -> float:
        world = fleet(
            World(), 1, 1, connection=lambda i: lte(Wire(Tls.SERVER, keep_alive_s)), body=lambda i: Body(PI)
        )
        world.run(HOUR_S)
        body = world.host("d0").body
        assert body
        world.settle()
        return body.ledger.radio

    extra = radio_joules(60.0) - radio_joules(None)
    assert extra == pytest.approx(12.76 * HOUR_S / 45, rel=0.03)


def test_a_shared_medium_slows_its_links_and_weighs_the_same() -> None:
    def played(medium: Medium | None) -> World:
        world = fleet(World(), 4, 2, connection=lambda i: lte(Wire(), medium=medium), body=lambda i: Body(PI))
        world.run(HOUR_S, stop=lambda: finished(world))
        world.settle()
        return world

    alone, crowded = played(None), played(Medium(2e3, 2e3))
    assert finished(crowded)
    assert crowded.now > alone.now + 1
    up = [sum(w.host(f"d{i}").ip_bytes_up for i in range(4)) for w in (alone, crowded)]
    assert up[0] == pytest.approx(up[1], rel=0.02), "the same messages, but for a repeated one"


def test_sensors_of_a_new_process_begin_at_nothing() -> None:
    world = fleet(World(), 1, 2, body=lambda i: Body(PI))
    world.run(HOUR_S, stop=lambda: finished(world))
    world.settle()
    sensors = SimSensors(world.host("d0"), metered=Constant(1.0))
    r = sensors.read(world.now)
    assert (r.bytes_up, r.bytes_down, r.joules_compute, r.joules_radio) == (0, 0, 0.0, 0.0)
    assert r.metered
    assert world.bytes_of("d0") > (0, 0)


def test_garbage_is_collected_as_before_once_time_has_passed() -> None:
    before = gc.get_threshold()
    seen: list[int] = []
    try:
        for threshold in (700, 0, 10**6):
            gc.set_threshold(threshold, 10, 10)
            world = World()
            world.at(1.0, lambda: seen.append(gc.get_threshold()[0]))
            world.run(2.0)
            assert gc.get_threshold() == (threshold, 10, 10)
    finally:
        gc.set_threshold(*before)
    assert seen[0] > 700
    assert seen[1:] == [0, 10**6]
