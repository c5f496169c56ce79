"""What commands print: recordings of vcgencmd, Termux, busctl, gdbus and nmcli, and laws for any output."""

from __future__ import annotations

import json
import sys
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import recordings as rec
from hypothesis import given, settings
from hypothesis import strategies as st
from test_power_supply import sane

from laconic.edge_sdk.readers import command
from laconic.edge_sdk.readers.network_manager import NetworkManager, of_busctl, of_gdbus, of_nmcli
from laconic.edge_sdk.readers.psutil_battery import PsutilBattery, told
from laconic.edge_sdk.readers.raspberry_pi import PowerChip, Temperature, Throttled
from laconic.edge_sdk.readers.termux import BatteryStatus, Connection
from often import examples


def saying(**outputs: str) -> Callable[[Sequence[str]], str | None]:
    """Commands that print this; those that are not here fail."""
    return lambda words: outputs.get(words[0].replace("-", "_"))


# --- Raspberry Pi


def test_throttled_now_and_since_boot() -> None:
    s = Throttled(saying(vcgencmd="throttled=0x50005\n")).read()
    assert s.throttled is True
    assert s.notes == ("under-voltage", "throttled", "under-voltage since boot", "throttled since boot")
    assert Throttled(saying(vcgencmd="throttled=0x50000\n")).read().throttled is False
    assert Throttled(saying(vcgencmd="throttled=0x0\n")).read().notes == ()


def test_temperature_of_a_pi() -> None:
    assert Temperature(saying(vcgencmd="temp=39.5'C\n")).read().temperature_c == 39.5


def test_rails_of_a_pi_5_pair_by_name() -> None:
    s = PowerChip(saying(vcgencmd=rec.PMIC)).read()
    core = 10.87674 * 0.8974594
    others = (
        (0.06245952 * 3.306322 + 0.1610285 * 1.798289 + 0.00780744 * 1.102929 + 0.1756674 * 1.104394)
        + (0.3279125 * 0.8025633 + 0.0003663 * 3.304942 + 0.00042735 * 3.302194)
        + (0.00579975 * 0.7973619 + 0.0136752 * 5.07056)
    )
    assert s.power_w == pytest.approx(core + others)
    assert s.notes == ("5.07 V at the input",)


def test_a_pi_4_has_no_power_chip() -> None:
    assert not PowerChip(saying(vcgencmd='error=1 error_msg="Command not registered"\n')).read().tells


# --- Termux


@pytest.mark.parametrize(
    ("output", "charge", "charging", "watts"),
    [
        (rec.PHONE_UNPLUGGED, 0.45, False, 0.394 * 3.85),
        (rec.PHONE_PLUGGED, 0.96, True, None),
        (rec.PHONE_CONFUSED, 0.52, False, 0.232 * 3.85),
        (rec.CHROMEBOOK, 0.71, True, None),
    ],
)
def test_phones(output: str, charge: float, charging: bool, watts: float | None) -> None:
    s = BatteryStatus(saying(termux_battery_status=output)).read()
    assert (s.charge, s.charging) == (charge, charging)
    assert s.power_w == (None if watts is None else pytest.approx(watts))


def test_a_charge_counter_is_believed_before_the_current() -> None:
    s = BatteryStatus(saying(termux_battery_status=rec.PHONE_2025)).read()
    assert (s.charge, s.power_w, s.temperature_c) == (0.72, None, 30.1)
    assert s.stored_joules == pytest.approx(3.384 * 3.85 * 3600)
    milli = rec.PHONE_2025.replace("3384000", "3384")
    assert BatteryStatus(saying(termux_battery_status=milli)).read().stored_joules == s.stored_joules


def test_microamperes_are_told_from_milliamperes_by_size() -> None:
    micro = rec.PHONE_UNPLUGGED.replace("-394", "-394000")
    assert BatteryStatus(saying(termux_battery_status=micro)).read().power_w == pytest.approx(0.394 * 3.85)


def test_wifi_is_taken_for_unmetered_and_the_mobile_network_for_metered() -> None:
    wifi = Connection(saying(termux_wifi_connectioninfo=rec.WIFI)).read()
    assert (wifi.metered, wifi.inferred) == (False, ("metered",))
    mobile = {"termux_wifi_connectioninfo": rec.NO_WIFI, "termux_telephony_deviceinfo": rec.MOBILE}
    assert Connection(saying(**mobile)).read().metered is True
    assert not Connection(saying(termux_wifi_connectioninfo=rec.NO_WIFI)).read().tells


# --- NetworkManager


@pytest.mark.parametrize(("value", "metered"), [(0, None), (1, True), (2, False), (3, True), (4, False)])
def test_metered_values(value: int, metered: bool | None) -> None:
    """busctl(1) with --json=short, without (github.com/commaai/openpilot pull request 35293), gdbus(1)."""
    assert of_busctl(f'{{"type":"u","data":{value}}}\n') is metered
    assert of_busctl(f"u {value}\n") is metered
    assert of_gdbus(f"(<uint32 {value}>,)\n") is metered


def test_nmcli_counts_devices_that_are_connected() -> None:
    assert of_nmcli(rec.NMCLI) is True
    assert of_nmcli(rec.NMCLI.replace("yes (guessed)", "no")) is False
    assert of_nmcli(rec.NMCLI.replace("100 (connected)", "30 (disconnected)")) is None


def test_the_program_that_answers_is_asked_again_and_left_when_it_fails() -> None:
    asked: list[str] = []
    alive = True

    def run(words: Sequence[str]) -> str | None:
        asked.append(words[0])
        return "(<uint32 1>,)" if words[0] == "gdbus" and alive else None

    reader = NetworkManager(run)
    assert reader.read().metered is True
    assert asked == ["busctl", "busctl", "gdbus"]
    assert reader.read().metered is True
    assert asked[3:] == ["gdbus"]
    assert "gdbus" in reader.source
    alive = False
    assert not reader.read().tells
    assert not reader.read().tells
    assert asked[4:] == ["gdbus", "busctl", "busctl", "gdbus", "nmcli"]


# --- psutil


def test_psutil() -> None:
    """psutil's documentation, sensors_battery: percent, secsleft, power_plugged."""
    battery = namedtuple("battery", "percent secsleft power_plugged")
    s = told(battery(93, 16628, False))
    assert (s.charge, s.charging) == (0.93, False)
    assert told(battery(100, -2, None)).charging is None
    assert not told(None).tells
    assert not told(battery(float("nan"), 0, True)).tells
    sane(PsutilBattery().read())


# --- any output


READERS = (Throttled, Temperature, PowerChip, BatteryStatus, Connection, NetworkManager)
words = st.sampled_from(
    (
        *("throttled=0x", "temp=", "'C", "VDD_CORE_A current(7)=", "VDD_CORE_V volt(7)=", "A\n", "V\n", "u "),
        *("1e999", "nan", "-", "9" * 400, "(<uint32 ", ">,)", "GENERAL.STATE:100", "GENERAL.METERED:yes"),
        *("\n", "[" * 5000),
    )
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.just(10**400), st.text(max_size=5),
    st.sampled_from(["DISCHARGING", "CHARGING", "FULL", "UNPLUGGED", "PLUGGED_AC", "COMPLETED"]),
)  # fmt: skip
keys = st.sampled_from(
    (
        *("percentage", "plugged", "status", "temperature", "voltage", "current", "current_average"),
        *("charge_counter", "supplicant_state", "ip", "data_state", "data"),
    )
)


@given(
    st.one_of(
        st.none(),
        st.text(max_size=60),
        st.lists(words, max_size=8).map("".join),
        st.dictionaries(keys, leaves, max_size=8).map(json.dumps),
    )
)
@settings(max_examples=examples(300))
def test_any_output_gives_a_sample_or_nothing(output: str | None) -> None:
    for make in READERS:
        reader = make(lambda words: output)
        sane(reader.read())
        sane(reader.read())


# --- running


def test_a_commands_output_and_its_failures() -> None:
    python = (sys.executable, "-c")
    assert command.run((*python, "print('throttled=0x0')")) == "throttled=0x0\n"
    assert command.run((*python, "print('x'); raise SystemExit(3)")) is None
    assert command.run((*python, "print('x' * 10**6)")) is None
    assert command.run(("no-such-program-here",)) is None
    assert command.run(("with\0nul",)) is None


def test_a_command_that_hangs_ends_with_its_children(tmp_path: Path) -> None:
    """A child that lived on would hold the pipe open until it has left its mark."""
    mark = tmp_path / "mark"
    assert command.run(("sh", "-c", f"(sleep 2; touch {mark}) & sleep 60"), timeout_s=0.2) is None
    assert not mark.exists()


def test_commands_speak_english() -> None:
    assert command.run(("sh", "-c", "echo $LC_ALL")) == "C\n"
