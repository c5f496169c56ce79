"""Scenario files that are wrong are refused with their file, key, value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_scenario import TABLE, tiny

from laconic.device_sim import Scenario, run
from laconic.device_sim.scenario import scenario
from laconic.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("colour", "red", "colour"),
        ("end.hours", 0.0, "end.hours"),
        ("end.hours", float("nan"), "end.hours"),
        ("name", "../up", "name"),
        ("model.bundle", "b", "one of built_in, bundle, onnx"),
        ("data.source", "web", "digits, npz, mnist, cmapss, har"),
        ("data.path", "x.npz", "data.path"),
        ("data.download", True, "with mnist, cmapss, har"),
        ("data.cmapss.subset", "FD005", "FD001, FD002"),
        ("data.cmapss.channels", ["s1", "s22"], "s22"),
        ("data.drift.kind", "wind", "none, turn, sensor, classes"),
        ("data.drift.steps", 0, "data.drift.steps"),
        ("model.hidden", [8, 0], "model.hidden"),
        ("coordinator.bundle", "b", "coordinator.bundle"),
        ("coordinator.rounds.deadline", 3, "unknown key coordinator.rounds.deadline (there is deadline_s)"),
        ("sed", 1, "unknown key sed (there is seed)"),
        ("devices.pi.battery", {"maah": 1}, "unknown key devices[1].battery.maah (there is mah)"),
        ("devices.pi.colour", "red", "unknown key devices[1].colour;"),
        (
            "devices.pi.speed.sample_s",
            "fast",
            "devices[1].speed.sample_s: expected `float",
        ),
        ("media", [{"up_mbps": 1.0}], "there is no key media[0].name"),
        ("coordinator.rounds.min_devices", 6, "number of devices, 5"),
        ("coordinator.rounds.min_reports", 6, "number of devices, 5"),
        ("devices.pi.count", -1, "devices.pi.count"),
        ("devices.pi.share", 0.5, "count, or a share"),
        ("devices.pi.time_zone", "Moon/Sea", "Moon/Sea"),
        ("devices.pi.connection.medium", "cell", "ap"),
        ("devices.pi.speed.flops", 1e6, "one of sample_s, flops, task"),
        ("devices.pi.limits.min_charge", 2.0, "limits.min_charge"),
        ("devices.phone.battery.charge_least", 1.5, "charge_least"),
        ("sweep", {"seed": []}, "sweep.seed"),
    ],
)
def test_a_wrong_key_is_named(key: str, value: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        tiny().replaced({key: value})
    assert told in str(refused.value)
    assert "scenario" in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("coordinator.rounds.min_devices", 0, "coordinator.rounds.min_devices"),
        ("coordinator.gate.mode", "loud", "loud"),
        ("devices.pi.board", "abacus", "abacus"),
        ("devices.pi.cores", 9, "cores"),
        ("devices.pi.battery", {}, "devices.pi.battery.mah"),
        ("devices.phone.connection.up_trace", "none.txt", "none.txt"),
        ("devices.phone.presence", {"kind": "sessions", "mean": 0.9}, "availability"),
        ("model.built_in", "digits_cnn", ""),
        ("data", {"source": "npz", "path": "none.npz"}, "none.npz"),
        ("data", {"source": "mnist", "path": "none"}, "none"),
    ],
)
def test_what_a_run_cannot_use_is_named(key: str, value: Any, told: str) -> None:
    wrong = tiny(end__rounds=1).replaced({key: value})
    if key == "model.built_in":
        assert run(wrong).totals.parameters > 200_000
        return
    with pytest.raises(ConfigError, match=told):
        run(wrong)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("name = ")
    with pytest.raises(ConfigError, match=r"s\.toml is not TOML"):
        Scenario.read(tmp_path / "s.toml")
    with pytest.raises(ConfigError, match=r"s\.toml is not TOML"):
        Scenario.read(str(tmp_path / "s.toml"))


def test_shares_are_of_the_fleet() -> None:
    table = TABLE | {"fleet_size": 20, "devices": []}
    for name, share in (("a", 0.25), ("b", 0.75)):
        table["devices"] = [*table["devices"], {"name": name, "share": share, "speed": {"sample_s": 1.0}}]
    result = run(Scenario.of(table).replaced({"end.rounds": 1}))
    assert [sum(d.kind == k for d in result.devices) for k in "ab"] == [5, 15]


def test_a_digest_tells_settings_seed_and_files_apart(tmp_path: Path) -> None:
    assert tiny().digest() == tiny().digest()
    assert tiny(seed=1).digest() != tiny().digest()
    (tmp_path / "t").write_text("0 1\n1 2\n")
    traced = Scenario.of(TABLE, tmp_path).replaced({"devices.pi.connection": {"up_trace": "t"}})
    before = traced.digest()
    (tmp_path / "t").write_text("0 1\n1 3\n")
    assert traced.digest() != before


def test_what_only_shows_results_is_there_to_be_left_out() -> None:
    for name in scenario._SHOWS:
        assert (Path(scenario.__file__).parents[2] / name).exists(), name
