"""Batteries under /sys/class/power_supply: recordings of real machines, and laws for any content at all."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import pytest
import recordings as rec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laconic.edge_sdk.readers.current import CurrentScale
from laconic.edge_sdk.readers.power_supply import PowerSupply
from laconic.edge_sdk.readers.sample import QUANTITIES, Sample, plausible
from often import examples

NAMES = (
    *("type", "scope", "status", "present", "online", "capacity", "voltage_now", "voltage_min_design"),
    *("energy_now", "energy_full", "energy_full_design", "charge_now", "charge_full", "current_now"),
    "power_now",
)


def read(root: Path, **uevents: str) -> Sample:
    return PowerSupply(rec.supplies(root, **uevents)).read()


def test_two_batteries_weigh_by_what_they_hold(tmp_path: Path) -> None:
    s = read(tmp_path, AC=rec.MAINS_OFF, BAT0=rec.THINKPAD_BAT0, BAT1=rec.THINKPAD_BAT1)
    assert s.charge == pytest.approx(0.09 * 25.86 / (25.86 + 20.0))
    assert s.charging is False
    assert s.power_w == pytest.approx(27.758)
    assert s.stored_joules == pytest.approx(2.42 * 3600)


def test_power_from_current_and_voltage(tmp_path: Path) -> None:
    s = read(tmp_path, BAT0=rec.DELL_DISCHARGING)
    assert (s.charge, s.charging) == (0.98, False)
    assert s.power_w == pytest.approx(0.756 * 12.6)
    assert s.stored_joules == pytest.approx(4.723 * 11.4 * 3600)


@pytest.mark.parametrize("sign", ["", "-"])
def test_the_sign_of_a_current_means_nothing(tmp_path: Path, sign: str) -> None:
    uevent = rec.TABLET.replace("CURRENT_NOW=", f"CURRENT_NOW={sign}")
    assert read(tmp_path, BATC=uevent).power_w == pytest.approx(1.56 * 3.942)


def test_what_flows_into_a_battery_is_not_what_the_device_takes(tmp_path: Path) -> None:
    s = read(tmp_path, BAT0=rec.DELL_CHARGING, AC=rec.MAINS_ON)
    assert (s.charging, s.power_w) == (True, None)


def test_a_battery_beside_a_weak_charger_drains_and_measures_nothing(tmp_path: Path) -> None:
    s = read(tmp_path, BAT0=rec.DELL_DISCHARGING, AC=rec.MAINS_ON)
    assert (s.charging, s.power_w) == (False, None)


@pytest.mark.parametrize(("mains", "charging"), [(rec.MAINS_ON, True), (rec.MAINS_OFF, False), ("", False)])
def test_not_charging_is_judged_by_the_charger(tmp_path: Path, mains: str, charging: bool) -> None:
    s = read(tmp_path, BAT0=rec.THRESHOLD_REACHED, AC=mains)
    assert s.charge == pytest.approx(65.44 / 69.24)
    assert (s.charging, s.power_w) == (charging, None)


def test_a_mouse_is_not_the_device(tmp_path: Path) -> None:
    assert not read(tmp_path, hidpp_battery_8=rec.MOUSE).tells
    s = read(tmp_path, hidpp_battery_8=rec.MOUSE, BAT0=rec.DELL_DISCHARGING)
    assert s.charge == 0.98


def test_a_battery_that_was_taken_out_is_none(tmp_path: Path) -> None:
    gone = rec.DELL_DISCHARGING.replace("PRESENT=1", "PRESENT=0")
    assert read(tmp_path, BAT0=gone, AC=rec.MAINS_ON) == Sample(charging=True)
    assert not read(tmp_path, BAT0=gone, AC=rec.MAINS_OFF).tells


def test_files_that_fail_are_missing(tmp_path: Path) -> None:
    """Reading /proc/self/mem from its beginning gives EIO; a folder EISDIR."""
    rec.supplies(tmp_path, BAT0=rec.DELL_DISCHARGING)
    folder = tmp_path / "sys/class/power_supply/BAT0"
    for name in ("voltage_now", "capacity"):
        (folder / name).unlink()
    (folder / "voltage_now").symlink_to("/proc/self/mem")
    (folder / "capacity").mkdir()
    s = PowerSupply(tmp_path).read()
    assert s.charge == pytest.approx(4723 / 4804)
    assert s.power_w is None


def test_nothing_there(tmp_path: Path) -> None:
    assert not PowerSupply(tmp_path).read().tells
    assert not PowerSupply(rec.supplies(tmp_path)).read().tells


@pytest.mark.parametrize("percent", ["104", "100"])
def test_a_gauge_above_full_is_full(tmp_path: Path, percent: str) -> None:
    uevent = rec.TABLET.replace("CAPACITY=74", f"CAPACITY={percent}")
    assert read(tmp_path, BATC=uevent).charge == 1.0


def test_a_gauge_that_says_nonsense_is_not_asked(tmp_path: Path) -> None:
    uevent = rec.TABLET.replace("CAPACITY=74", "CAPACITY=65535")
    assert read(tmp_path, BATC=uevent).charge == pytest.approx(5.92 / 8.0)


def test_the_scale_of_a_current_is_learnt_from_the_charge_that_leaves() -> None:
    """15 A in 2 minutes is half an ampere hour; 15 mA is half a milliampere hour."""
    for raw, scale in ((15_000_000.0, 1.0), (15_000.0, 1000.0)):
        learner = CurrentScale()
        for minute in range(3):
            learner.observe(minute * 60.0, raw, 2e6 - minute * 250_000, 2e6)
        assert learner.learnt == scale
        assert learner.microamperes(-raw) == 15e6


def test_a_current_that_fits_no_scale_teaches_nothing() -> None:
    learner = CurrentScale()
    for minute in range(10):
        learner.observe(minute * 60.0, 5.0, 2e6 - minute * 250_000, 2e6)
    assert learner.learnt is None


numbers = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.floats(width=64).map(str),
    st.sampled_from(
        ["", "nan", "inf", "-1", "0", "1e999", "0x10", "Discharging", "Full", "Device", "Battery"]
    ),
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(NAMES), st.one_of(numbers, st.binary(max_size=40)), max_size=15),
        max_size=3,
    )
)
@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_gives_a_sample_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, supplies: list[dict[str, str | bytes]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    for i, content in enumerate(supplies):
        folder = root / "sys/class/power_supply" / f"S{i}"
        folder.mkdir(parents=True)
        (folder / "type").write_text("Battery\n")
        for name, value in content.items():
            (folder / name).write_bytes(value.encode() if isinstance(value, str) else value)
    sane(PowerSupply(root).read())


@given(st.builds(Sample, *([st.one_of(st.none(), st.floats())] * len(QUANTITIES))))
@settings(max_examples=examples(200))
def test_whatever_a_reader_tells_what_is_kept_can_be(s: Sample) -> None:
    sane(s)


def sane(s: Sample) -> None:
    """Every number of what the sampler keeps of a sample is one, and lies where it can."""
    s = plausible(s)
    for name in ("charge", "power_w", "stored_joules", "temperature_c", "cpu_load"):
        value = getattr(s, name)
        assert value is None or isfinite(value)
    assert s.charge is None or 0 <= s.charge <= 1
    assert s.cpu_load is None or 0 <= s.cpu_load <= 1
    assert s.power_w is None or 0 <= s.power_w <= 1000
