"""Traces of faults: scenarios that once ended in a traceback, or never."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from tiny_scenario import TABLE, tiny

from laconic.config import read_file
from laconic.device_sim import Scenario, run
from laconic.device_sim.body import Body
from laconic.device_sim.scenario.fleet import devices_of
from laconic.device_sim.scenario.running import Progress
from laconic.device_sim.scenario.sweep import run_all
from laconic.device_sim.traces import all_of, bandwidth
from laconic.errors import ConfigError

PHONE = "devices.phone"


@pytest.mark.parametrize("value", [nan, inf, -inf, 1e300])
@pytest.mark.parametrize(
    "key",
    ["battery.begin_hour", "battery.hours", "battery.jitter_hours", "presence.peak_hour", "presence.mean"],
)
def test_hours_that_are_no_hours_are_refused_by_their_key(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        tiny().replaced({f"{PHONE}.{key}": value})


@pytest.mark.parametrize("jitter_hours", [-1.0, 8.0])
def test_a_night_that_jitters_away_is_refused_by_its_class(jitter_hours: float) -> None:
    with pytest.raises(ConfigError, match="phone"):
        list(devices_of(tiny(devices__phone__battery__jitter_hours=jitter_hours).settings, Path()))


def test_jobs_that_take_no_time_at_all_are_refused_by_their_key() -> None:
    with pytest.raises(ConfigError, match=r"phone\.failures\.slow"):
        tiny(devices__phone__failures__slow=0.0)


def test_a_battery_that_is_empty_as_soon_as_it_starts_is_refused() -> None:
    # Its host once started and ran empty a hundred thousand times a second.
    battery = {"mah": 1e-3, "charger": "always", "user_w": [1e6]}
    with pytest.raises(ConfigError, match=r"phone\.battery\.mah"):
        list(devices_of(tiny(devices__phone__battery=battery).settings, Path()))
    list(devices_of(tiny(devices__phone__battery=battery | {"charger": "none"}).settings, Path()))


@pytest.mark.parametrize("failures", [{"crash": 1.0}, {"drop_out": 1.0, "away_s": 0.0}])
def test_jobs_that_fail_in_no_time_and_begin_again_are_refused(failures: dict[str, float]) -> None:
    scenario = tiny(devices__phone__speed={"sample_s": 0.0, "job_s": 0.0}, devices__phone__failures=failures)
    with pytest.raises(ConfigError, match=r"phone\.speed\.job_s"):
        list(devices_of(scenario.settings, Path()))


@pytest.mark.parametrize(
    "lines",
    ["0 1\n1e-300 1\n", "0 1e-300\n1 1e-300\n", "0 0\n1e-9 1\n", "0 1\n1e308 1\n", "-1e308 1\n1e308 1\n"],
)
def test_traces_that_a_transfer_would_follow_for_ever_are_refused(lines: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(lines)
    with pytest.raises(ConfigError, match="trace"):
        bandwidth(path)


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 5000, "[sweep]\nseed = " + "[" * 5000 + "]" * 5000, "seed = " + "9" * 5000],
    ids=["open", "deep", "long"],
)
def test_brackets_and_numbers_without_end_are_no_toml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not TOML"):
        Scenario.read(path)


def test_devices_and_names_that_no_file_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="a device"):
        read_file(Path("/dev/zero"), "model")
    with pytest.raises(ConfigError, match="zero bytes"):
        read_file(Path("a\0b"), "model")


@pytest.mark.parametrize("size", [-4, 10**400], ids=["negative", "huge"])
def test_a_fleet_of_a_size_that_none_has_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="fleet_size"):
        tiny(fleet_size=size)


@pytest.mark.parametrize(
    "named", ["n" * 300, "n" * 300 + "/*", "n" * 300 + ".tar:*"], ids=["file", "all", "tar"]
)
def test_names_that_are_too_long_for_a_file_are_refused(named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        all_of(tmp_path, named)


@pytest.mark.parametrize("source", ["mnist", "har", "cmapss", "npz"])
def test_folders_whose_name_is_too_long_are_refused(source: str) -> None:
    with pytest.raises(ConfigError):
        run(tiny().replaced({"data": {"source": source, "path": "n" * 300}}))


@pytest.mark.parametrize(("size", "told"), [(-(10**13), "a member of -"), (17 << 20, "size of bus/b")])
def test_an_archive_that_hides_how_much_is_in_it_is_refused(size: int, told: str, tmp_path: Path) -> None:
    # A sum that had been made small by a first member let the second be read whole, whatever its size.
    with tarfile.open(tmp_path / "all.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        first = tarfile.TarInfo("bus")
        first.type, first.pax_headers = tarfile.DIRTYPE, {"size": str(min(0, size))}
        tar.addfile(first)
        second = tarfile.TarInfo("bus/b")
        second.size = max(0, size)
        tar.addfile(second, io.BytesIO(bytes(second.size)))
    with pytest.raises(ConfigError, match=told):
        all_of(tmp_path, "all.tar:bus/*")


def test_a_sweep_of_more_runs_than_fit_into_memory_is_refused_at_once(tmp_path: Path) -> None:
    keys = ("seed", "end.rounds", "start_hour", "data.samples", "baselines.every", "end.hours")
    with pytest.raises(ConfigError, match="runs of the sweep"):
        run_all(tiny(), tmp_path, sweep={key: range(1, 1001) for key in keys})


def test_a_sweep_does_not_sweep_itself() -> None:
    # The key became part of a folder's name, and the results lay outside of the output.
    with pytest.raises(ConfigError, match="key of the sweep"):
        list(tiny().swept({"sweep.a/../../x": [[1]]}))


def _never(label: str, number: int, of: int) -> Callable[[Progress], Any] | None:
    raise AssertionError("a run has begun")


def test_a_folder_that_cannot_be_written_is_found_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        run_all(tiny(), tmp_path / "file", begin=_never)
    long = {f"devices.{name}.failures.{key}": [0.123456789012] for name in ("phone", "pi") for key in
            ("drop_out", "crash", "slow", "away_s")}  # fmt: skip
    with pytest.raises(ConfigError, match="too long"):
        run_all(tiny(), tmp_path, sweep=long, begin=_never)


def test_images_of_nobody_can_be_turned() -> None:
    # Of a single example none is held out; a run ended there, after its last round.
    drift = {"kind": "turn", "hours": 1.0}
    result = run(tiny(end__rounds=1, data__samples=1, data__own_held_out=0.2, data__drift=drift))
    assert not result.scores


def test_a_battery_that_empties_as_its_transfer_over_a_shared_medium_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one(charge: float) -> Scenario:
        battery = {"mah": 50.0, "charge_least": charge, "charge_most": charge, "charger": "none"}
        phone = {"name": "phone", "count": 1, "radio": "lte_2012", "speed": {"sample_s": 0.004}}
        phone |= {"battery": battery, "connection": {"medium": "ap"}}
        media = [{"name": "ap", "up_mbps": 0.02, "down_mbps": 0.02}]
        end = {"rounds": 1, "hours": 0.01}
        return Scenario.of(TABLE | {"end": end, "coordinator": {}, "media": media, "devices": [phone]})

    left: list[float] = []
    close = Body.close_transfer

    def closing(self: Body, up_bytes: float, down_bytes: float) -> None:
        left.append(self.energy_j)
        close(self, up_bytes, down_bytes)

    with monkeypatch.context() as patch:
        patch.setattr(Body, "close_transfer", closing)
        (row,) = run(one(0.5)).devices
    assert row.battery_j is not None
    for energy_j in left[:3]:
        # A microsecond of some watts less than what it takes to come as far as that.
        charge = 0.5 - (energy_j + 2e-6) / row.battery_j
        assert not run(one(charge)).devices[0].on
