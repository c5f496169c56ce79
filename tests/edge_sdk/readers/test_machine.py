"""Joules, charge and load of a whole machine: laws of counting, and lives of devices told by the clock."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.edge_sdk.readers import Machine, Reader, Sample, probe
from laconic.edge_sdk.readers.energy import WorkEnergy
from laconic.edge_sdk.readers.probe import as_object, as_text
from laconic.edge_sdk.readers.sampler import Sampler
from laconic.edge_sdk.readers.trace import PowerTrace, Slice
from laconic.edge_sdk.sensors import Origin
from laconic.errors import ConfigError
from laconic.profiles import board
from laconic.transport.link import WireBytes
from often import examples

IDLE_W, WORK_W = 3.0, 2.5
NOTHING = Sample()
NOWHERE = Path("/nowhere")
"""A machine without a device tree, so that the tests say the same on a Raspberry Pi."""


@dataclass
class Clock:
    now: float = 1000.0
    own_s: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Meter:
    """A reader that tells what it is told to; a sample that is an exception is raised."""

    told: Sample | Exception = NOTHING
    period_s: float = 2.0
    source: str = "a meter"
    asked: int = 0

    def read(self) -> Sample:
        self.asked += 1
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


@dataclass
class Life:
    """A device with a power meter, lived by hand."""

    clock: Clock = field(default_factory=Clock)
    meter: Meter = field(default_factory=Meter)
    machine: Machine | None = None

    def begin(self, **options: object) -> Machine:
        self.machine = Machine(
            lambda: WireBytes(0, 0, True),
            readers=[self.meter],
            clock=self.clock,
            own_s=lambda: self.clock.own_s,
            background=False,
            root=NOWHERE,
            **options,
        )
        return self.machine

    def live(self, seconds: int, watts: Callable[[float], Sample], *, own: float = 0.0) -> None:
        """`own`: cores that this process keeps busy meanwhile."""
        assert self.machine is not None
        for _ in range(seconds // 2):
            self.clock.now += 2
            self.clock.own_s += 2 * own
            self.meter.told = watts(self.clock.now)
            self.machine.sample()

    def joules(self) -> float:
        assert self.machine is not None
        return self.machine.read(0.0).joules_compute


def idle(now: float) -> Sample:
    return Sample(power_w=IDLE_W)


def busy(now: float) -> Sample:
    return Sample(power_w=IDLE_W + WORK_W)


# --- energy


def test_work_is_what_power_rises_by_above_idle() -> None:
    life = Life()
    machine = life.begin(board="rpi_4b")
    life.live(120, idle)
    life.live(60, busy, own=1.0)
    machine.worked(60.0)
    r = machine.read(0.0)
    # The rise itself lies between two samples: half a period is not seen.
    assert r.joules_compute == pytest.approx(60 * WORK_W, rel=0.02)
    assert (r.compute_origin, r.measured) == (Origin.MEASURED, True)


def test_before_anything_is_measured_the_profile_counts_and_is_put_right_later() -> None:
    """Work that comes before the device was ever idle counts by the profile, and then as measured."""
    life = Life()
    machine = life.begin(board="rpi_4b", threads=2)
    life.live(60, busy, own=2.0)
    machine.worked(60.0)
    assert life.joules() == pytest.approx(60 * board("rpi_4b").core_w * 2)
    assert machine.read(0.0).compute_origin is Origin.MODELLED
    life.live(60, idle)
    assert machine.read(0.0).compute_origin is Origin.MEASURED
    assert life.joules() == pytest.approx(60 * WORK_W, rel=0.03)


def test_what_was_counted_too_much_is_taken_off_what_comes_next() -> None:
    life = Life()
    machine = life.begin(board="rpi_5", threads=4)
    life.live(60, busy, own=4.0)
    machine.worked(60.0)
    much = life.joules()
    assert much > 60 * WORK_W * 3
    life.live(60, idle)
    assert life.joules() == much
    for _ in range(5):
        life.live(60, busy, own=4.0)
        machine.worked(60.0)
        life.live(20, idle)
    assert life.joules() == pytest.approx(360 * WORK_W, rel=0.05)


def test_short_work_between_two_samples_counts_at_the_watts_of_longer_work() -> None:
    life = Life()
    machine = life.begin()
    life.live(120, idle)
    life.live(60, busy, own=1.0)
    machine.worked(60.0)
    before = life.joules()
    life.clock.now += 0.5
    machine.worked(0.4)
    assert life.joules() - before == pytest.approx(0.4 * WORK_W, rel=0.05)


def test_a_battery_that_tells_charge_alone_measures_by_what_it_loses() -> None:
    """A phone: 19.9 Wh, one step of its gauge is 716 J, or four minutes of idling at 3 W."""
    life = Life(meter=Meter(Sample(charge=1.0, charging=False)))
    machine = life.begin(battery_wh=19.9, board="phone_mid")
    spent = 0.0

    def gauge(power: float) -> Callable[[float], Sample]:
        def told(now: float) -> Sample:
            nonlocal spent
            spent += 2 * power
            return Sample(charge=int(100 * (1 - spent / (19.9 * 3600))) / 100, charging=False)

        return told

    life.live(3600, gauge(IDLE_W))
    life.live(1800, gauge(IDLE_W + WORK_W), own=1.0)
    machine.worked(1800.0)
    life.live(1200, gauge(IDLE_W))
    assert machine.read(0.0).compute_origin is Origin.MEASURED
    assert life.joules() == pytest.approx(1800 * WORK_W, rel=0.1)


def test_a_long_slice_tells_of_the_work_that_fills_half_of_it() -> None:
    for work_s, measured in ((140.0, False), (160.0, True)):
        energy = WorkEnergy(1.0)
        energy.add(Slice(0.0, 300.0, 300 * IDLE_W, own_s=0.0, whole=True))
        energy.worked(300.0 + work_s, work_s)
        energy.add(Slice(300.0, 600.0, 300 * IDLE_W + 400.0, own_s=work_s, whole=True))
        assert energy.measured is measured
        assert energy.joules == (400.0 if measured else work_s)


def test_the_first_step_of_a_gauge_ends_a_time_that_nobody_saw_begin() -> None:
    trace, slices = PowerTrace(), []
    for at, stored in ((0.0, 1000.0), (10.0, 900.0), (100.0, 900.0), (110.0, 800.0), (120.0, 790.0)):
        slices.append(trace.feed(at, 0.0, source=1, power_w=None, stored_joules=stored))
    assert slices == [None, None, None, Slice(10.0, 110.0, 100.0, 0.0, whole=True), None]


def test_nothing_to_count_by_is_unknown() -> None:
    machine = Life().begin()
    machine.worked(10.0)
    r = machine.read(0.0)
    assert (r.joules_compute, r.compute_origin, r.measured) == (0.0, Origin.UNKNOWN, False)


def test_a_modelled_radio_makes_the_totals_modelled() -> None:
    life, wire = Life(), [WireBytes(0, 0, True)]
    machine = Machine(
        lambda: wire[0],
        readers=[life.meter],
        radio="lte_2012",
        clock=life.clock,
        own_s=lambda: life.clock.own_s,
        background=False,
        root=NOWHERE,
    )
    life.machine = machine
    life.live(60, idle)
    life.live(20, busy, own=1.0)
    machine.worked(20.0)
    assert machine.read(0.0).measured
    wire[0] = WireBytes(1000, 0, True)
    r = machine.read(0.0)
    assert r.joules_radio == pytest.approx(12.76, rel=0.01)
    assert (r.compute_origin, r.radio_origin, r.measured) == (Origin.MEASURED, Origin.MODELLED, False)


events = st.lists(
    st.tuples(
        st.sampled_from(["slice", "work"]),
        st.floats(0.01, 500.0),
        st.floats(0.0, 50.0),
        st.floats(0.0, 4.0),
        st.booleans(),
    ),
    max_size=40,
)


@given(st.one_of(st.none(), st.floats(0.0, 20.0)), events)
@settings(max_examples=examples(300))
def test_joules_never_go_back_and_stay_finite(
    profile_w: float | None, lived: list[tuple[str, float, float, float, bool]]
) -> None:
    energy, now, last = WorkEnergy(profile_w), 0.0, 0.0
    for what, seconds, watts, own, whole in lived:
        if what == "slice":
            energy.add(Slice(now, now + seconds, watts * seconds, own * seconds, whole))
            now += seconds
        else:
            energy.worked(now, seconds)
        assert last <= energy.joules < 1e9
        assert energy.measured_share is None or 0 <= energy.measured_share <= 1 + 1e-9
        last = energy.joules


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(1, 30)), min_size=1, max_size=20))
@settings(max_examples=examples(200))
def test_slices_hold_the_energy_of_the_power(steps: list[tuple[float, int]]) -> None:
    """Trapezoids over any steps: their sum is the integral, and they lie end to end."""
    trace, now, slices, expected, last = PowerTrace(), 0.0, [], 0.0, None
    for watts, seconds in steps:
        now += seconds
        if last is not None:
            expected += seconds * (watts + last) / 2
        last = watts
        piece = trace.feed(now, 0.0, source=1, power_w=watts, stored_joules=None)
        slices += [] if piece is None else [piece]
    assert sum(s.joules for s in slices) == pytest.approx(expected)
    assert all(a.end_s == b.start_s for a, b in pairwise(slices))


def test_another_source_begins_anew() -> None:
    trace = PowerTrace()
    assert trace.feed(0.0, 0.0, source=1, power_w=5.0, stored_joules=None) is None
    assert trace.feed(2.0, 0.0, source=2, power_w=9.0, stored_joules=None) is None
    assert trace.feed(4.0, 0.0, source=2, power_w=9.0, stored_joules=None) is not None
    assert trace.feed(900.0, 0.0, source=2, power_w=9.0, stored_joules=None) is None, (
        "nobody saw what lies between"
    )


# --- battery, network, load


def test_without_any_battery_the_device_is_on_the_mains() -> None:
    r = Life().begin().read(0.0)
    assert (r.charge, r.charging, r.charge_origin) == (None, True, Origin.MODELLED)


def test_a_battery_that_cannot_be_read_any_more_keeps_its_charge_and_does_not_charge() -> None:
    life = Life(meter=Meter(Sample(charge=0.3, charging=True)))
    machine = life.begin()
    assert machine.read(0.0).charging is True
    life.meter.told = OSError(5, "Input/output error")
    life.live(600, lambda now: life.meter.told)
    r = machine.read(0.0)
    assert (r.charge, r.charging, r.charge_origin) == (0.3, False, Origin.MEASURED)
    assert r.age_s == 600


def test_a_battery_that_nobody_measures_is_modelled() -> None:
    life = Life()
    machine = life.begin(board="rpi_4b", battery_wh=1.0, charge=0.5)
    assert machine.read(0.0).charge == 0.5
    machine.worked(10.0)
    r = machine.read(600.0)
    spent = 10 * board("rpi_4b").core_w + 600 * board("rpi_4b").idle_w.value
    assert r.charge == pytest.approx(0.5 - spent / 3600)
    assert (r.charging, r.charge_origin) == (False, Origin.MODELLED)
    assert machine.read(1e12).charge == 0.0


def test_the_owners_word_on_metering_is_not_taken_back() -> None:
    life = Life(meter=Meter(Sample(metered=False)))
    assert life.begin(metered=True).read(0.0).metered is True
    r = life.begin().read(0.0)
    assert (r.metered, r.metered_origin) == (False, Origin.MEASURED)
    life.meter.told = Sample(metered=True, inferred=("metered",))
    r = life.begin().read(0.0)
    assert (r.metered, r.metered_origin) == (True, Origin.MODELLED)


def test_old_temperature_and_load_are_unknown() -> None:
    life = Life(meter=Meter(Sample(temperature_c=61.0, throttled=True, cpu_load=0.4)))
    machine = life.begin()
    r = machine.read(0.0)
    assert (r.temperature_c, r.throttled, r.cpu_load) == (61.0, True, 0.4)
    life.clock.now += 100
    r = machine.read(0.0)
    assert (r.temperature_c, r.throttled, r.cpu_load) == (None, None, None)


@given(
    st.lists(
        st.tuples(
            st.builds(
                Sample,
                st.one_of(st.none(), st.floats()),
                st.one_of(st.none(), st.booleans()),
                st.one_of(st.none(), st.floats()),
                st.one_of(st.none(), st.floats()),
                st.one_of(st.none(), st.floats()),
            ),
            st.integers(0, 400),
            st.floats(0.0, 100.0),
        ),
        max_size=12,
    )
)
@settings(max_examples=examples(200))
def test_whatever_readers_tell_readings_are_sane(lived: list[tuple[Sample, int, float]]) -> None:
    life, last = Life(), 0.0
    machine = life.begin(board="rpi_4b", radio="wifi_2012", battery_wh=10.0)
    for sample, seconds, work_s in lived:
        life.clock.now += seconds
        life.meter.told = sample
        machine.sample()
        machine.worked(work_s)
        r = machine.read(life.clock.now)
        assert r.charge is None or 0 <= r.charge <= 1
        assert last <= r.joules_compute < 1e9
        assert r.temperature_c is None or -60 <= r.temperature_c <= 150
        last = r.joules_compute
    assert all(len(as_text(line)) == 5 for line in machine.describe(life.clock.now))


# --- asking


def test_a_reader_that_tells_nothing_is_asked_less_and_less_often() -> None:
    clock, dead, alive = Clock(), Meter(), Meter(Sample(power_w=1.0))
    sampler = Sampler([dead, alive], clock=clock, own_s=lambda: 0.0)
    for _ in range(1800):
        clock.now += 2
        sampler.step()
    assert alive.asked == 1801
    assert dead.asked <= 12
    dead.told = Sample(cpu_load=0.5)
    clock.now += 3600
    sampler.step()
    before = dead.asked
    clock.now += 2
    sampler.step()
    assert dead.asked == before + 1, "one that tells again is asked at its period again"


def test_step_says_when_the_next_is_due() -> None:
    clock = Clock()
    sampler = Sampler(
        [Meter(Sample(power_w=1.0), period_s=2.0), Meter(Sample(cpu_load=0.1), period_s=5.0)],
        clock=clock,
        own_s=lambda: 0.0,
    )
    assert sampler.step() == 2.0
    clock.now += 1.5
    assert sampler.step() == 0.5
    assert Sampler([], clock=clock).step() > 60


def test_reading_waits_for_no_reader_and_the_thread_ends_with_its_machine() -> None:
    hold, asked = threading.Event(), threading.Event()

    class Slow:
        source, period_s, first = "a slow reader", 0.01, True

        def read(self) -> Sample:
            if not self.first:
                asked.set()
                hold.wait(60)
            self.first = False
            return Sample(charge=0.5, charging=False)

    readers: list[Reader] = [Slow()]
    machine = Machine(lambda: WireBytes(1, 2, True), readers=readers)
    assert machine.read(0.0).charge == 0.5
    assert asked.wait(60)
    assert machine.read(0.0).charge == 0.5, "while the reader is being asked"
    thread = next(t for t in threading.enumerate() if t.name == "laconic-readers")
    del machine
    gc.collect()
    hold.set()
    thread.join(60)
    assert not thread.is_alive()


# --- telling


def test_the_board_is_recognised_also_beside_readers_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("Raspberry Pi Zero 2 W Rev 1.0\0")
    machine = Machine(lambda: WireBytes(0, 0, True), readers=[Meter()], background=False, root=tmp_path)
    machine.worked(10.0)
    assert machine.read(0.0).joules_compute == pytest.approx(10 * board("rpi_zero2w").core_w)


def test_every_quantity_says_where_it_comes_from() -> None:
    meter = Meter(Sample(charge=0.8, charging=False, power_w=4.5, temperature_c=50.0, notes=("5.07 V",)))
    lines, notes = probe(readers=[meter], board="rpi_5", radio="wifi_2012", sleep=lambda s: None)
    rows = {line.quantity: line for line in lines}
    assert rows["charge"].origin is rows["power"].origin is Origin.MEASURED
    assert rows["power"].source == "a meter"
    assert rows["joules_radio"].source.startswith("profile wifi_2012: 802.11g/n")
    assert rows["throttled"].origin is Origin.UNKNOWN
    assert as_object(rows["throttled"])["source"] is None
    assert as_text(rows["charging"])[1] == "no"
    assert as_text(rows["power"])[1:4] == ("4.5", "W", "measured")
    assert notes == ["a meter: 5.07 V"]


def test_this_machine_can_be_probed() -> None:
    lines, _ = probe(sleep=lambda s: None)
    assert {"charge", "power", "cpu_load"} <= {line.quantity for line in lines}


@pytest.mark.parametrize(
    "options",
    [{"board": "abacus"}, {"radio": "smoke"}, {"battery_wh": 0.0}, {"battery_wh": 1.0, "charge": 2.0}],
)
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"power\."):
        Life().begin(**options)
