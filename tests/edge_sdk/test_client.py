"""The device in a program: what it refuses, when it can predict, that it can always be stopped."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laconic.config import load
from laconic.edge_sdk import Device, Limits, device_from_file
from laconic.edge_sdk.daemon import DeviceConfig, run
from laconic.edge_sdk.power import ModelledPower, WireOnly, radio_costs, radio_named
from laconic.errors import ConfigError, StorageError
from laconic.node import Effect, Event, Note
from laconic.profiles import board
from laconic.runtime import Bundle, Trainer
from laconic.storage import MemoryStore
from laconic.training import prepare
from laconic.training.models import digits_cnn
from laconic.transport.driver import Driver
from laconic.transport.link import WireBytes
from laconic.transport.memory import MemoryHub, MemoryLink
from laconic.transport.mqtt import Address

NOBODY = "mqtt://127.0.0.1:9"


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(Bundle.read(prepare(digits_cnn(0))))


@pytest.fixture
def settings(tmp_path: Path, trainer: Trainer) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.random((12, 1, 8, 8), np.float32)
    return {"broker": NOBODY, "bundle": trainer, "data": (x, np.arange(12) % 10), "store": tmp_path / "d.db"}


def test_it_predicts_at_once_and_without_a_broker(settings: dict[str, Any]) -> None:
    """Recorded: a prediction right after the start found no model."""
    for _ in range(3):
        with Device("d", **settings) as device:
            assert device.predict(settings["data"][0]).shape == (12, 10)
            assert device.version == 0


def test_a_link_that_cannot_be_made_is_said(settings: dict[str, Any]) -> None:
    heard: list[Note] = []
    with Device("d", on_note=lambda note, now: heard.append(note), **settings):
        deadline = time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
    assert heard[0].kind == "offline"
    assert "127.0.0.1:9" in str(heard[0].fields["why"])


@pytest.mark.parametrize("chunk_bytes", [0, -1, 255, 2**16 + 1])
def test_chunks_that_cannot_be_sent_are_refused(settings: dict[str, Any], chunk_bytes: int) -> None:
    with pytest.raises(ConfigError, match="chunk_bytes"):
        Device("d", chunk_bytes=chunk_bytes, **settings)


def test_a_chunk_must_fit_into_a_packet(settings: dict[str, Any]) -> None:
    settings["broker"] = Address("127.0.0.1", max_packet_bytes=1000)
    with pytest.raises(ConfigError, match="chunk_bytes"):
        Device("d", chunk_bytes=1000, **settings)
    Device("d", chunk_bytes=512, **settings)


@pytest.mark.parametrize("retry_s", [0, -1, float("nan"), float("inf")])
def test_a_wait_that_is_none_is_refused(settings: dict[str, Any], retry_s: float) -> None:
    with pytest.raises(ConfigError, match="retry_s"):
        Device("d", retry_s=retry_s, **settings)


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "x" * 65, "d\n"])
def test_a_name_that_cannot_stand_in_a_topic_is_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match="name of the device"):
        Device(name, **settings)


def test_a_store_that_another_device_holds_is_refused(settings: dict[str, Any]) -> None:
    with Device("d", **settings), pytest.raises(StorageError), Device("e", **settings):
        pass


def test_a_bundle_or_data_named_as_the_store_are_left_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    """Recorded: a bundle was taken for a damaged store, and put aside."""
    bundle, data = tmp_path / "model.bundle", tmp_path / "data.npz"
    bundle.write_bytes(prepare(digits_cnn(0)))
    np.savez(data, x=np.zeros(3))
    for file, kind in ((bundle, "bundle"), (data, "npz")):
        before = file.read_bytes()
        with pytest.raises(ConfigError, match=kind):
            Device("d", **{**settings, "store": file})
        assert file.read_bytes() == before


class Restless:
    """A node that always wants to wake at once."""

    will = None
    wake_at = 0.0

    def handle(self, event: Event, now: float) -> list[Effect]:
        self.wake_at += 1e-9
        return []


def test_a_node_that_never_rests_can_be_cancelled() -> None:
    """Recorded: with a wait of 0 s the process could only be killed."""

    async def main() -> None:
        driver = Driver(Restless(), MemoryLink(MemoryHub(), "n"), MemoryStore())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await driver.run()

    asyncio.run(main())


# --- configuration


def write(folder: Path, text: str) -> Path:
    file = folder / "d.toml"
    file.write_text(text)
    return file


def test_the_environment_overrides_and_does_not_clash(tmp_path: Path) -> None:
    """Recorded: a variable of the test suite, LACONIC_DATA, was taken for a device's data."""
    file = write(tmp_path, 'name = "a"\nbundle = "b"\ndata = "c"\n')
    environment = {
        "LACONIC_DATA": "/elsewhere",
        "LACONIC_DEVICE_NAME": "z",
        "LACONIC_BROKER_KEEP_ALIVE_S": "30",
        "LACONIC_LIMITS_ONLY_CHARGING": "true",
        "LACONIC_COORDINATOR_BUNDLE": "not mine",
    }
    config = load(DeviceConfig, file, environment, who="device")
    assert (config.name, config.bundle, config.data) == ("z", "b", "c")
    assert config.broker.keep_alive_s == 30
    assert config.limits == Limits(only_charging=True)


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        ('name = "a"\nbundle = "b"\ndata = "c"\ncolour = 1\n', {}, "colour"),
        ('name = "a"\nbundle = "b"\ndata = "c"\n[broker]\nurl = 7\n', {}, "broker.url"),
        (
            'name = "a"\nbundle = "b"\ndata = "c"\n[broker]\nkeepalive_s = 7\n',
            {},
            r"unknown key broker.keepalive_s \(there is keep_alive_s\)",
        ),
        ('name = "a"\ndata = "c"\n', {}, "bundle"),
        ('name = "a"\nbundle = "b"\ndata = { path = "c" }\n', {}, "kind"),
        ('name = "a"\nbundle = "b"\ndata = { kind = "tape", path = "c" }\n', {}, "tape"),
        ('name = "a"\nbundle = "b"\ndata = { kind = "npz", path = "c", keep = "all" }\n', {}, "keep"),
        (
            'name = "a"\nbundle = "b"\ndata = "c"\nbroker = "x"\n',
            {"LACONIC_BROKER_URL": "mqtt://h"},
            "broker",
        ),
        ("name = \n", {}, "not TOML"),
        ('name = "a"\nbundle = "b"\ndata = "c"\n', {"LACONIC_POWER_CHARGE": "full"}, "power.charge"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(DeviceConfig, write(tmp_path, text), environment, who="device")


def test_a_device_needs_data_from_its_file_or_from_its_program(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    (tmp_path / "digits.bundle").write_bytes(prepare(digits_cnn(0)))
    file = write(tmp_path, f'name = "a"\nbundle = "digits.bundle"\n[broker]\nurl = "{NOBODY}"\n')
    with pytest.raises(ConfigError, match="data"):
        asyncio.run(run([file], {}, lambda who, note, now: None))
    device = device_from_file(file, data=settings["data"], environment={"LACONIC_DEVICE_NAME": "b"})
    assert device.name == "b"
    assert device.predict(settings["data"][0]).shape == (12, 10)


# --- power


def test_a_radios_one_packet_transfer_costs_what_was_published() -> None:
    """Huang et al. (MobiSys 2012): 0.04 J for one packet over Wi-Fi."""
    assert radio_costs(radio_named("wifi_2012")).joules(40, 0, 1) == pytest.approx(0.04, rel=0.05)


def test_joules_and_battery_follow_bytes_and_seconds() -> None:
    wire = [WireBytes(0, 0, True)]
    power = ModelledPower("rpi_4b", "wifi_2012", lambda: wire[0], battery_wh=1.0, charge=0.5)
    before = power.read(0.0)
    assert (before.charge, before.joules_compute, before.joules_radio) == (0.5, 0.0, 0.0)
    power.worked(10.0)
    wire[0] = WireBytes(1_000_000, 0, True)
    after = power.read(0.0)
    assert after.joules_compute == pytest.approx(10 * board("rpi_4b").core_w)
    assert after.joules_radio > 2.0
    assert after.charge == pytest.approx(0.5 - (after.joules_compute + after.joules_radio) / 3600)
    idle = power.read(600.0)
    assert idle.charge == pytest.approx(after.charge - 600 * 2.7 / 3600)
    assert power.read(1e9).charge == 0.0
    assert WireOnly(lambda: wire[0]).read(0.0).charge is None


def test_what_goes_wrong_is_logged_where_nobody_listens(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Recorded: a mistyped broker was never mentioned."""
    with Device("d", **settings):
        deadline = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
    (record, *_) = caplog.records
    assert (record.name, record.levelname) == ("laconic.device", "WARNING")
    assert record.getMessage().startswith("d: offline why=127.0.0.1:9")
