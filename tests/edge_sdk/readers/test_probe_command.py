"""`laconic device --probe`: what it prints, with a configuration and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from laconic import cli
from laconic.edge_sdk.readers.probe import probe
from laconic.exit_codes import CONFIGURATION, OK

METER = """
from laconic.edge_sdk.readers import Sample

class Meter:
    source, period_s = "shunt", 2.0

    def __init__(self, options):
        self.watts = options["watts"]

    def read(self):
        return Sample(power_w=self.watts, notes=("recalibrate me",))
"""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probe.__kwdefaults__ or {}, "sleep", lambda seconds: None)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meter_to_probe.py").write_text(METER)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "device.toml"
    file.write_text(
        'name = "d"\nbundle = "b"\ndata = "d.npz"\nmetered = true\n'
        '[power]\nboard = "rpi_4b"\nradio = "ethernet_pi3"\nbattery_wh = 10.0\ncharge = 0.5\n'
        'reader = [{ name = "meter_to_probe:Meter", options = { watts = 4.25 } }]\n'
    )
    return file


def test_every_quantity_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["device", "--probe"]) == OK
    out = capsys.readouterr().out
    for quantity in ("charge", "metered", "power", "joules_compute", "joules_radio", "temperature"):
        assert f"\n  {quantity} " in out
    assert "bytes_up" not in out, "there is no connection"


def test_a_configuration_is_applied(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["device", "--probe", "--json", "--config", str(config)]) == OK
    answer = json.loads(capsys.readouterr().out)
    found = {q["quantity"]: (q["value"], q["origin"], q["source"]) for q in answer["quantities"]}
    assert found["power"] == (4.25, "measured", "shunt")
    assert found["metered"] == (True, "modelled", "the configuration")
    assert "ethernet_pi3" in found["joules_radio"][2]
    assert any("recalibrate me" in note for note in answer["notes"])


def test_two_configurations_are_one_too_many(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["device", "--probe", "--config", str(config), "--config", str(config)]) == CONFIGURATION
    assert "--probe" in capsys.readouterr().err


def test_to_run_a_device_takes_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["device"]) == CONFIGURATION
    assert "--config" in capsys.readouterr().err
