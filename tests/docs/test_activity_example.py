"""examples/activity: its sensor's arithmetic, and two people's recordings through a real broker."""

from __future__ import annotations

import importlib.util
import json
import lzma
import math
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "activity"
PEOPLE = (1, 3)
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def sensor(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLE)
    spec = importlib.util.spec_from_file_location("activity_sensor", EXAMPLE / "sensor.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delitem(sys.modules, "window", raising=False)
    return module


class Bus:
    """The registers of a sensor that lies still, face up, and is turned by 100 degrees a second about x."""

    def __init__(self, who: int = 0x68) -> None:
        self.registers = {0x75: who}
        self.raw = list(struct.pack(">7h", 0, 0, 8192, -512, 6550, 0, -1))
        self.closed = False

    def read_byte_data(self, address: int, register: int) -> int:
        return self.registers[register]

    def write_byte_data(self, address: int, register: int, value: int) -> None:
        self.registers[register] = value

    def read_i2c_block_data(self, address: int, register: int, length: int) -> list[int]:
        assert (address, register, length) == (0x68, 0x3B, 14)
        return self.raw


def test_registers_become_g_and_radians(sensor: ModuleType) -> None:
    bus = Bus()
    chip = sensor.Mpu6050(bus)
    assert chip.read() == pytest.approx(
        [0, 0, 1, math.radians(100), 0, math.radians(-1 / 65.5)], rel=1e-6, abs=1e-9
    )
    # Awake, 50 Hz, and the scales that the arithmetic counts on.
    assert bus.registers[0x6B] & 0x40 == 0
    assert 1000 / (1 + bus.registers[0x19]) == 50
    assert (bus.registers[0x1B] >> 3, bus.registers[0x1C] >> 3) == (1, 1)
    assert sensor.decoded(struct.pack(">7h", *[-32768] * 7))[0] == -4.0


def test_another_chip_is_not_taken_for_it(sensor: ModuleType) -> None:
    with pytest.raises(OSError, match="0x71"):
        sensor.Mpu6050(Bus(who=0x71))


def test_only_windows_within_one_label_have_it(
    sensor: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smbus2 = ModuleType("smbus2")
    smbus2.SMBus = lambda number: Bus()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "smbus2", smbus2)
    monkeypatch.setattr(sensor, "SAMPLE_S", 0.0)
    file = tmp_path / "label"

    def told() -> Iterator[int | None]:
        for word, (window, label) in zip(
            ["sitting", "sitting", "walking", "walking", "flying", ""], sensor.windows(file), strict=False
        ):
            assert window.shape == (128, 6)
            assert window.dtype == np.float32
            yield label
            file.write_text(word)

    # What a window yields was written before it began, or while it went on.
    assert list(islice(told(), 6)) == [None, None, 3, None, 0, None]


@pytest.fixture
def folder(shared_data: Path, tmp_path: Path) -> Path:
    """The example in a folder of its own, with every other window of four people."""
    for file in EXAMPLE.iterdir():
        if file.suffix in (".py", ".toml"):
            shutil.copy(file, tmp_path)
    har = tmp_path / "har"
    har.mkdir()
    with np.load(shared_data / "uci-har" / "labels.npz") as labels:
        chosen = np.flatnonzero(np.isin(labels["subject"], (*PEOPLE, 2, 4)))[::2]
        np.savez(har / "labels.npz", y=labels["y"][chosen], subject=labels["subject"][chosen])
    with lzma.open(shared_data / "uci-har" / "total_acc_body_gyro_f4.npy.xz") as file:
        x = np.load(file)[chosen]
    with lzma.open(har / "total_acc_body_gyro_f4.npy.xz", "wb", preset=0) as file:
        np.save(file, x)
    command = [sys.executable, "make_bundle.py", "--data", "har"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return iter(process.stdout.readline, "")


@pytest.mark.broker
@pytest.mark.data
def test_two_people_learn_from_each_other(
    folder: Path, mosquitto_path: str, free_port: int, start: Start, answers: Callable[[int], None]
) -> None:
    start(mosquitto_path, "-p", str(free_port))
    answers(free_port)
    url = f"mqtt://127.0.0.1:{free_port}"
    devices = [
        start(
            *(sys.executable, "activity.py", "--data", "har", "--person", str(person), "--speed", "2000"),
            *("--examples", f"examples-{person}"),
            LACONIC_DEVICE_NAME=f"pi-{person}",
            LACONIC_DEVICE_STORE=f"pi-{person}.db",
            LACONIC_BROKER_URL=url,
        )
        for person in PEOPLE
    ]
    for device in devices:
        # Their day goes by first; after it nothing new is added.
        counts = (int(m[1]) for line in lines(device) if (m := re.search(r"(\d+) examples", line)))
        before = 0
        for count in counts:
            if count == before > 100:
                break
            before = count
    coordinator = start(
        *(sys.executable, "-m", "laconic.cli", "coordinator", "--json", "--config", "coordinator.toml"),
        LACONIC_BROKER_URL=url,
        LACONIC_COORDINATOR_HELD_OUT="held-out.npz",
        LACONIC_ROUNDS_ROUNDS="3",
        LACONIC_ROUNDS_INTERVAL_S="0",
        LACONIC_ROUNDS_EXIT_WHEN_FINISHED="true",
    )
    notes: list[dict[str, Any]] = [json.loads(line) for line in lines(coordinator)]
    assert coordinator.wait(10) == 0
    for device in devices:
        for line in lines(device):
            if "version 3 is here" in line:
                break
        device.terminate()
        rest = list(lines(device))
        assert device.wait(10) == 0, rest
    versions = [n for n in notes if n["kind"] == "version"]
    assert [n["version"] for n in versions] == [0, 1, 2, 3]
    assert {n["device"] for n in notes if n["kind"] == "committed"} == {"pi-1", "pi-3"}
    assert versions[-1]["accuracy"] > versions[0]["accuracy"] + 0.1
