"""Devices of a class have recorded links: each a trace of its own, at a place of its own in it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tiny_scenario import TABLE

from laconic.device_sim import Scenario, run
from laconic.device_sim.links import Connection
from laconic.device_sim.scenario.fleet import devices_of
from laconic.device_sim.signals import Recorded
from laconic.device_sim.traces import all_of, files
from laconic.errors import ConfigError

COUNT = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten recordings that differ by their rate, a note beside them, and all of it as an archive."""
    (tmp_path / "bus").mkdir()
    for i in range(10):
        (tmp_path / "bus" / f"trace_{i}").write_text(f"0 {i + 1}\n10 {i + 2}\n20 {i + 1}\n")
    (tmp_path / "note").write_text("not a trace")
    with tarfile.open(tmp_path / "all.tar.xz", "w:xz") as tar:
        tar.add(tmp_path / "bus", "./bus")
        tar.add(tmp_path / "note", "./note")
    return tmp_path


def connections(folder: Path, seed: int = 0, **connection: str) -> list[Connection]:
    """Of a class of devices."""
    device: dict[str, Any] = {"name": "phone", "count": COUNT, "speed": {"sample_s": 1.0}}
    table = {**TABLE, "seed": seed, "devices": [{**device, "connection": connection}]}
    return [d.connection for d in devices_of(Scenario.of(table, folder).settings, folder)]


def trace(signal: object) -> Recorded:
    """A link's trace, which it has."""
    assert isinstance(signal, Recorded)
    return signal


@pytest.mark.parametrize("named", ["bus", "bus/trace_*", "all.tar.xz:bus/*"])
def test_each_device_draws_a_trace_and_a_phase(folder: Path, named: str) -> None:
    found = connections(folder, up_trace=named, down_trace=named)
    ups, downs = [trace(c.up_trace) for c in found], [trace(c.down_trace) for c in found]
    assert len({t.most for t in ups}) > 5
    assert len({t.origin_s for t in ups}) == COUNT
    assert all(-t.period_s < t.origin_s <= 0 for t in ups)
    assert [(t.most, t.origin_s) for t in ups] == [(t.most, t.origin_s) for t in downs]


def test_who_draws_what_is_the_seeds(folder: Path) -> None:
    def drawn(seed: int) -> list[tuple[float, float]]:
        found = (trace(c.up_trace) for c in connections(folder, seed, up_trace="bus"))
        return [(t.most, t.origin_s) for t in found]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_all_begin_at_the_start_if_they_are_to(folder: Path) -> None:
    found = connections(folder, up_trace="bus/trace_3", trace_phase="start")
    assert {(trace(c.up_trace).origin_s, trace(c.up_trace).most) for c in found} == {(0.0, 5 * 125_000.0)}
    assert all(c.down_trace is None for c in found)


def test_a_phase_that_there_is_not_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="trace_phase"):
        connections(folder, up_trace="bus", trace_phase="middle")


@pytest.mark.parametrize("named", ["none", "none_*", "note", "all.tar.xz:none/*", "note:x", "none.tar:*"])
def test_what_has_no_traces_is_named(folder: Path, named: str) -> None:
    with pytest.raises(ConfigError, match=r"none|note|all\.tar"):
        all_of(folder, named)


def test_an_archive_is_not_let_out_of_hand(folder: Path) -> None:
    """A member that says it is a gigabyte, a name of a megabyte, and one that is cut off."""
    with tarfile.open(folder / "large.tar", "w") as tar:
        member = tarfile.TarInfo("bus/large")
        member.size = 2**30
        tar.fileobj.write(member.tobuf())  # type: ignore[union-attr]
    with tarfile.open(folder / "named.tar.xz", "w:xz") as tar:
        long = tarfile.TarInfo("././@LongLink")
        long.type, long.size = tarfile.GNUTYPE_LONGNAME, 2**20
        tar.addfile(long, io.BytesIO(b"a" * long.size))
        tar.addfile(tarfile.TarInfo("bus/named"))
    whole = (folder / "all.tar.xz").read_bytes()
    (folder / "cut.tar.xz").write_bytes(whole[: len(whole) // 2])
    for name, why in (("large.tar", ""), ("named.tar.xz", "header of 1048576 bytes"), ("cut.tar.xz", "")):
        with pytest.raises(ConfigError, match=f"(?s){name}.*{why}"):
            all_of(folder, f"{name}:bus/*")


def test_a_digest_knows_every_file_of_many(folder: Path) -> None:
    assert len(files(folder, "bus")) == len(files(folder, "bus/*")) == 10
    assert files(folder, "all.tar.xz:bus/*") == [folder / "all.tar.xz"]
    scenario = Scenario.of(TABLE, folder).replaced({"devices.pi.connection": {"up_trace": "bus"}})
    before = scenario.digest()
    (folder / "bus" / "trace_7").write_text("0 1\n1 3\n")
    assert scenario.digest() != before


def test_a_run_by_traces_spends_other_joules_than_one_in_step(folder: Path) -> None:
    """And the same twice."""
    traced = Scenario.of(TABLE, folder).replaced(
        {"end.rounds": 1, "devices.phone.connection": {"up_trace": "bus", "down_trace": "bus"}}
    )
    own = run(traced)
    assert own.totals.joules == run(traced).totals.joules
    in_step = run(traced.replaced({"devices.phone.connection.trace_phase": "start"}))
    assert own.totals.joules != in_step.totals.joules


@pytest.mark.data
def test_the_published_recordings_are_drawn_from_their_archive(shared_data: Path) -> None:
    """Riiser et al.'s 3G logs as Pensieve has cooked them, and Oboe's."""
    archive = shared_data / "traces" / "bandwidth_3g_oboe.tar.xz"
    assert [len(all_of(archive.parent, f"{archive.name}:{p}/*")) for p in ("cooked_3gp", "traces_oboe")] == [
        80,
        428,
    ]
