"""Traces of faults: folders of results that are damaged, or that nobody of good will has made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_scenario import tiny

from laconic.cli import main
from laconic.device_sim.scenario import comparing, storing
from laconic.device_sim.scenario.sweep import run_all, runs_in
from laconic.errors import DataError
from laconic.exit_codes import OK

SHORT = tiny(end__rounds=1, devices__phone__count=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    run_all(SHORT, folder)
    return folder


def changed(whole: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    shutil.copytree(whole, folder)
    table = json.loads((folder / storing.RUN).read_text())
    change(table)
    (folder / storing.RUN).write_text(json.dumps(table))
    return folder


@pytest.mark.parametrize("settings", [{}, {"name": 5}, {"name": "x", "devices": "y"}])
def test_settings_that_are_none_are_refused(whole: Path, tmp_path: Path, settings: Any) -> None:
    folder = changed(whole, tmp_path / "run", lambda table: table.update(settings=settings))
    with pytest.raises(DataError, match="cannot be read"):
        storing.read(folder)


@pytest.mark.parametrize(
    ("kind", "most"), [(float, -1e308), (float, -1e50), (int, 10**400)], ids=["all", "less", "whole"]
)
@pytest.mark.parametrize("table", ["rounds", "devices", "totals"])
def test_figures_that_no_run_comes_to_are_refused(
    whole: Path, tmp_path: Path, table: str, kind: type, most: float
) -> None:
    # Drawing them ended in an overflow.
    def enlarged(row: dict[str, Any]) -> dict[str, Any]:
        return {k: most if type(v) is kind else v for k, v in row.items()}

    def change(run: dict[str, Any]) -> None:
        if table == "rounds":
            run["rounds"] = [enlarged(row) for row in run["rounds"]]
        elif table == "totals":
            run["totals"] = enlarged(run["totals"])

    folder = changed(whole, tmp_path / "run", change)
    if table == "devices":
        rows = [json.loads(line) for line in (folder / "devices.jsonl").read_text().splitlines()]
        (folder / "devices.jsonl").write_text("\n".join(json.dumps(enlarged(row)) for row in rows))
    with pytest.raises(DataError, match=f"in row 1 of {table}"):
        storing.read(folder)


def test_settings_of_an_earlier_release_have_todays_defaults(whole: Path, tmp_path: Path) -> None:
    folder = changed(whole, tmp_path / "run", lambda table: table["settings"]["end"].pop("accuracy"))
    assert storing.read(folder) == storing.read(whole)


def test_runs_without_rounds_can_be_compared(whole: Path, tmp_path: Path) -> None:
    folder = changed(whole, tmp_path / "run", lambda table: table.update(rounds=[]))
    a, b = storing.read(whole), storing.read(folder)
    assert comparing.results(a, b) == comparing.results(b, a) == []


def test_a_damaged_run_is_run_again(whole: Path, tmp_path: Path) -> None:
    # Its digest was right, and so it was told again and again to be run again.
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "devices.jsonl").write_text("{")
    (run,) = run_all(SHORT, folder)
    assert not run.cached
    assert storing.read(folder) == storing.read(whole)
    assert run_all(SHORT, folder)[0].cached


@pytest.mark.parametrize("label", ["..", ".", "", "/tmp", "a/b"])
def test_a_sweeps_runs_are_in_its_folder(whole: Path, tmp_path: Path, label: str) -> None:
    # A page was written into the folder above.
    shutil.copytree(whole, tmp_path / "above", dirs_exist_ok=True)
    sweep = tmp_path / "above" / "sweep"
    sweep.mkdir()
    (sweep / "sweep.json").write_text(json.dumps({"runs": [{"label": label, "digest": "x"}]}))
    with pytest.raises(DataError, match="label of a run"):
        runs_in(sweep)


@pytest.mark.parametrize("text", ['{"runs": []}', "[" * 100_000, '"x"', ""])
def test_a_sweep_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(DataError, match="sweep in"):
        runs_in(tmp_path)


def test_folders_with_names_that_there_are_not(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["report", "a\0b"], ["compare", str(whole), "a\0b"]):
        assert main(["sim", *command]) != OK
        assert "zero bytes" in capsys.readouterr().err
