"""INA3221, INA219, thermal zones, the kernel's alarm, /proc/stat: trees, registers, and laws."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import recordings as rec
from hypothesis import given, settings
from hypothesis import strategies as st
from test_power_supply import sane

from laconic.edge_sdk.readers.detect import board_here, detect
from laconic.edge_sdk.readers.ina219 import BUS, SHUNT, Ina219, Options, bus_volts, shunt_volts
from laconic.edge_sdk.readers.ina219 import told as of_registers
from laconic.edge_sdk.readers.ina3221 import PowerMonitor
from laconic.edge_sdk.readers.plugins import load
from laconic.edge_sdk.readers.processor import ProcessorLoad
from laconic.edge_sdk.readers.raspberry_pi import VoltageAlarm
from laconic.edge_sdk.readers.thermal import Thermal
from laconic.errors import ConfigError
from often import examples

# --- Jetson


def hwmon(root: Path, number: int, content: dict[str, str]) -> Path:
    return rec.files(root / f"sys/class/hwmon/hwmon{number}", content)


def xavier_nx(root: Path) -> Path:
    """Rails and files of a Xavier NX (github.com/alumet-dev/alumet, nvidia-jetson); the figures are ours."""
    names = ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    content = {"name": "ina3221", "in7_label": "sum of shunt voltages", "in7_input": "5000"}
    for i, (label, volts, amperes) in enumerate(
        zip(names, (5040, 5032, 5032), (976, 272, 312), strict=True), 1
    ):
        content |= {f"in{i}_label": label, f"in{i}_input": str(volts), f"curr{i}_input": str(amperes)}
    return hwmon(root, 6, content)


def test_the_modules_rail_is_the_total(tmp_path: Path) -> None:
    xavier_nx(tmp_path)
    hwmon(tmp_path, 0, {"name": "ina219", "in1_label": "VDD_IN", "in1_input": "1", "curr1_input": "1"})
    assert PowerMonitor(tmp_path).read().power_w == pytest.approx(5.04 * 0.976)


def test_a_part_never_passes_for_the_total(tmp_path: Path) -> None:
    folder, monitor = xavier_nx(tmp_path), PowerMonitor(tmp_path)
    assert monitor.read().power_w is not None
    (folder / "curr1_input").unlink()
    (folder / "curr1_input").symlink_to("/proc/self/mem")
    assert not monitor.read().tells


def test_rails_beside_each_other_add_up(tmp_path: Path) -> None:
    """An AGX Orin has no rail for all (github.com/rbonghi/jetson_stats issues 344 and 428); figures ours."""
    for number, rails in ((3, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")), (4, ("VDDQ_VDD2_1V8AO", "NC"))):
        content = {"name": "ina3221"}
        for i, label in enumerate(rails, 1):
            content |= {f"in{i}_label": label, f"in{i}_input": "5000", f"curr{i}_input": "400"}
        hwmon(tmp_path, number, content)
    s = PowerMonitor(tmp_path).read()
    assert s.power_w == pytest.approx(4 * 2.0)
    assert "VDD_GPU_SOC" in s.notes[0]


def test_the_older_driver_of_a_nano(tmp_path: Path) -> None:
    """Rails by github.com/energymon/energymon, JetsonPowerRails.md; the figures are ours."""
    content = {}
    for i, (label, milliwatts) in enumerate((("POM_5V_IN", 2150), ("POM_5V_GPU", 40), ("POM_5V_CPU", 700))):
        content |= {f"rail_name_{i}": label, f"in_power{i}_input": str(milliwatts)}
    rec.files(tmp_path / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0", content)
    assert PowerMonitor(tmp_path).read().power_w == 2.15


# --- INA219


def test_registers_of_a_hat() -> None:
    """github.com/hjw163/INA219-Utilities: shunt -6.330 mV, bus 8.196 V on a HAT with two cells."""
    assert shunt_volts(0xFD87) == pytest.approx(-6.33e-3)
    assert bus_volts(0x4008) == pytest.approx(8.196)
    # Charging or giving is a matter of how the shunt is wired.
    s = of_registers(0xFD87, 0x4008, Options(discharging="negative"))
    assert s.power_w == pytest.approx(8.196 * 0.0633)
    assert (s.charging, s.inferred) == (False, ("charge",))
    assert s.charge == pytest.approx((8.196 / 2 - 3.0) / 1.2)
    assert of_registers(0xFD87, 0x4008, Options(discharging="positive")).charging is True


def test_registers_of_the_data_sheet() -> None:
    """SBOS448, table 4 and section 8.6.3.2: the ends of both ranges."""
    assert shunt_volts(0x7D00) == pytest.approx(0.32)
    assert shunt_volts(0x8300) == pytest.approx(-0.32)
    assert bus_volts(0x1F40 << 3) == pytest.approx(32.0)
    assert bus_volts(0x0007) == 0.0


def test_an_overflow_tells_no_current() -> None:
    s = of_registers(0x7FFF, 0x4009, Options())
    assert (s.charging, s.power_w) == (None, None)
    assert s.charge is not None


def test_a_chip_that_is_gone_tells_nothing() -> None:
    def gone(register: int) -> int:
        raise OSError(121, "Remote I/O error")

    assert not Ina219(Options(), gone).read().tells
    assert not Ina219(Options(), lambda register: 0).read().tells
    registers = {SHUNT: 0xFD87, BUS: 0x4008}
    assert Ina219(Options(), registers.__getitem__).read().power_w is not None


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.floats(0.0001, 10.0),
    st.integers(1, 6),
    st.sampled_from(["positive", "negative"]),
)
@settings(max_examples=examples(200))
def test_any_registers_give_a_sample(shunt: int, bus: int, ohm: float, cells: int, sign: str) -> None:
    s = of_registers(shunt, bus, Options(shunt_ohm=ohm, cells=cells, discharging=sign))
    sane(s)
    assert s.power_w is None or s.charging is False


# --- readers by name


def test_a_reader_by_dotted_name_and_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_meter.py").write_text(
        "from laconic.edge_sdk.readers import Sample\n"
        "class Meter:\n"
        "    source, period_s = 'my meter', 1.0\n"
        "    def __init__(self, options): self.watts = options['watts']\n"
        "    def read(self): return Sample(power_w=self.watts)\n"
        "def nothing(options): return None\n"
        "number = 7\n"
    )
    rec.files(
        tmp_path / "my_meter-1.0.dist-info",
        {
            "METADATA": "Name: my-meter\nVersion: 1.0",
            "entry_points.txt": "[laconic.readers]\nmine = my_meter:Meter",
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load("my_meter:Meter", {"watts": 3.5}).read().power_w == 3.5
    assert load("mine", {"watts": 2.0}).read().power_w == 2.0
    for name, says in (
        ("my_meter:nothing", "NoneType"),
        ("my_meter:number", "a function"),
        ("my_meter:absent", "AttributeError"),
        ("no_such_module:f", "ModuleNotFoundError"),
        ("nobody", "ina219, mine"),
        ("my_meter:Meter", "KeyError"),
    ):
        with pytest.raises(ConfigError, match=says):
            load(name, {})


@pytest.mark.parametrize(
    "options", [{"address": 0x20}, {"shunt_ohm": 0.0}, {"cells": "two"}, {"color": 1}, {"discharging": "up"}]
)
def test_options_of_the_hat_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="ina219"):
        load("ina219", options)


def test_a_bus_that_cannot_be_opened_is_named() -> None:
    there = importlib.util.find_spec("smbus2") is not None
    with pytest.raises(ConfigError, match="I2C bus 250" if there else "extra i2c"):
        load("ina219", {"bus": 250})


# --- temperature, alarm, load


def test_the_hottest_zone_of_the_processor(tmp_path: Path) -> None:
    for i, (kind, value) in enumerate(
        (("cpu-thermal", "51540"), ("gpu-thermal", "49000"), ("battery", "90000"), ("cpu-dead", "-273000"))
    ):
        rec.files(tmp_path / f"sys/class/thermal/thermal_zone{i}", {"type": kind, "temp": value})
    assert Thermal(tmp_path).read().temperature_c == 51.54


def test_hwmon_where_there_is_no_zone_of_the_processor(tmp_path: Path) -> None:
    rec.files(tmp_path / "sys/class/thermal/thermal_zone0", {"type": "acpitz", "temp": "27800"})
    assert Thermal(tmp_path).read().temperature_c == 27.8
    hwmon(tmp_path, 1, {"name": "k10temp", "temp1_input": "64125"})
    assert Thermal(tmp_path).read().temperature_c == 64.125


@pytest.mark.parametrize(("alarm", "throttled"), [("0", False), ("1", True), ("", None)])
def test_the_kernels_voltage_alarm(tmp_path: Path, alarm: str, throttled: bool | None) -> None:
    hwmon(tmp_path, 2, {"name": "rpi_volt", "in0_lcrit_alarm": alarm})
    assert VoltageAlarm(tmp_path).read().throttled is throttled


def stat(root: Path, *ticks: int) -> None:
    rec.files(root / "proc", {"stat": f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3 4"})


def test_load_leaves_this_process_out(tmp_path: Path) -> None:
    own = [0.0]
    stat(tmp_path, 100, 0, 100, 800, 0, 0, 0, 0, 50, 0)
    reader = ProcessorLoad(tmp_path, own_s=lambda: own[0], ticks_per_s=100)
    assert not reader.read().tells
    stat(tmp_path, 160, 0, 110, 925, 5, 0, 0, 0, 90, 0)
    own[0] = 0.3
    # 200 ticks have passed, 70 of them busy, of which 30 were ours.
    assert reader.read().cpu_load == pytest.approx(0.2)


def test_load_average_where_stat_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    rec.files(tmp_path / "proc", {"loadavg": "2.00 1.50 1.20 3/512 4242"})
    own, now = [0.0], [0.0]
    reader = ProcessorLoad(tmp_path, own_s=lambda: own[0], clock=lambda: now[0])
    assert reader.read().cpu_load == pytest.approx(0.5)
    # After an hour in which this process kept one core busy, the average holds one core of ours.
    own[0] = now[0] = 3600.0
    assert reader.read().cpu_load == pytest.approx(0.25)


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=40))
@settings(max_examples=examples(200))
def test_any_content_of_proc_and_zones(
    tmp_path_factory: pytest.TempPathFactory, first: bytes, second: bytes, average: bytes
) -> None:
    root = tmp_path_factory.mktemp("proc")
    zone = rec.files(root / "sys/class/thermal/thermal_zone0", {"type": "cpu"})
    (zone / "temp").write_bytes(average)
    folder = rec.files(root / "proc", {})
    reader = ProcessorLoad(root, ticks_per_s=100)
    for content in (first, b"cpu " + second, b"cpu 1 2 3 4 5", b"cpu 9 9 9 9 9 " + first):
        (folder / "stat").write_bytes(content)
        (folder / "loadavg").write_bytes(average)
        sane(reader.read())
    sane(Thermal(root).read())


# --- what is there


def test_what_a_raspberry_pi_has(tmp_path: Path) -> None:
    rec.files(tmp_path / "proc/device-tree", {"model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    rec.files(tmp_path / "sys/class/thermal/thermal_zone0", {"type": "cpu-thermal", "temp": "50000"})
    rec.supplies(tmp_path)
    programs = {"vcgencmd", "nmcli"}
    found = detect(tmp_path, lambda name: name if name in programs else None)
    assert [type(r).__name__ for r in found] == [
        "PowerChip", "PowerSupply", "NetworkManager", "Throttled", "Thermal", "ProcessorLoad",
    ]  # fmt: skip
    assert board_here(tmp_path) == "rpi_5"


def test_what_a_phone_has(tmp_path: Path) -> None:
    found = detect(tmp_path, lambda name: name if name.startswith("termux-") else None)
    assert [type(r).__name__ for r in found] == ["BatteryStatus", "Connection"]
    assert board_here(tmp_path) is None


def test_what_an_empty_machine_has(tmp_path: Path) -> None:
    assert [type(r).__name__ for r in detect(tmp_path, lambda name: None)] == ["PsutilBattery"]
