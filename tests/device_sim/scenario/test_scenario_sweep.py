"""Runs are written once: what is there and right is not run again, what lacks is."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from pathlib import Path

import msgspec
import pytest
from tiny_scenario import tiny

from laconic import tables
from laconic.cli import main
from laconic.device_sim.scenario import comparing, storing, sweep
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.sweep import lacking_in, run_all, runs_in
from laconic.errors import ConfigError, DataError
from laconic.exit_codes import INTERRUPTED

SHORT = tiny(end__rounds=1, devices__phone__count=0)
TWO_PIS = (
    'name = "s"\n[end]\nrounds = 1\n[model]\nbuilt_in = "softmax"\n[data]\nsamples = 10\n'
    '[[devices]]\nname = "pi"\ncount = 2\nspeed.sample_s = 0.1\n'
)
SWEEP = {"seed": [0, 1], "coordinator.gate.threshold": [0.0, 0.5]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_sweep_goes_on_with_what_lacks(tmp_path: Path) -> None:
    first = run_all(SHORT, tmp_path, sweep=SWEEP)
    assert [r.cached for r in first] == [False] * 4
    whole = contents(tmp_path)
    assert {"sweep.json", f"{first[1].label}/run.json", f"{first[1].label}/devices.jsonl"} <= set(whole)
    # A run that was cut off has no run.json, whatever else it has.
    (first[1].folder / storing.RUN).unlink()
    shutil.rmtree(first[3].folder)
    again = run_all(SHORT, tmp_path, sweep=SWEEP)
    assert [r.cached for r in again] == [True, False, True, False]
    assert contents(tmp_path) == whole
    assert [r.result.totals for r in runs_in(tmp_path)] == [r.result.totals for r in first]


def test_other_settings_are_run_again(tmp_path: Path) -> None:
    run_all(SHORT, tmp_path)
    assert run_all(SHORT, tmp_path)[0].cached
    assert not run_all(SHORT.replaced({"seed": 5}), tmp_path)[0].cached


def test_a_single_run_takes_a_sweeps_place(tmp_path: Path) -> None:
    assert not run_all(SHORT, tmp_path, sweep={"seed": [0]})[0].replaced
    assert run_all(SHORT, tmp_path)[0].replaced
    assert [r.label for r in runs_in(tmp_path)] == [""]
    assert not run_all(SHORT, tmp_path)[0].replaced
    assert run_all(SHORT.replaced({"seed": 5}), tmp_path)[0].replaced


def test_what_is_wrong_in_the_last_run_is_found_before_the_first(tmp_path: Path) -> None:
    for key, values in (
        ("devices.pi.board", ["rpi_5", "abacus"]),
        ("coordinator.gate.mode", ["model", "no"]),
    ):
        with pytest.raises(ConfigError, match=values[1]):
            run_all(SHORT, tmp_path, sweep={key: values})
    assert not contents(tmp_path)


def test_an_interrupted_sweep_says_what_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(label: str, number: int, of: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(SHORT, tmp_path, sweep=SWEEP, begin=begin)
    assert (len(runs_in(tmp_path)), lacking_in(tmp_path)) == (2, 2)
    run_all(SHORT, tmp_path, sweep=SWEEP)
    assert (len(runs_in(tmp_path)), lacking_in(tmp_path)) == (4, 0)
    scenario = tmp_path / "s.toml"
    scenario.write_text(TWO_PIS)
    monkeypatch.setattr(sweep, "play", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert main(["sim", "run", str(scenario), "--output", str(tmp_path / "out")]) == INTERRUPTED
    assert "interrupted: it begins anew" in capsys.readouterr().err
    assert main(["sim", "run", str(scenario), "--output", str(tmp_path / "out"), "--sweep", "seed=1,2"])
    assert "interrupted: runs that had ended are kept" in capsys.readouterr().err


def test_a_run_that_went_wrong_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "s.toml"
    scenario.write_text(TWO_PIS)
    command = ["sim", "run", str(scenario), "--set", "end.hours=1", "--output", str(tmp_path / "out")]
    assert main([*command, "--set", "coordinator.schedule.paused=true"]) == 0
    assert "no version was made in 60\N{NO-BREAK SPACE}min: no round was opened" in capsys.readouterr().out
    wild = (
        "model.built_in=mlp",
        "coordinator.training.learning_rate=1000.0",
        "coordinator.training.epochs=20",
    )
    assert main([*command, *(word for text in wild for word in ("--set", text))]) == 0
    found = storing.read(tmp_path / "out").totals
    assert found.failures == {"largest value of an update x weight, allowed 1048576.0": 2}
    (why,) = found.failures
    assert f"work that came to nothing 2 times: {why}" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        run_all(SHORT, tmp_path / "file")


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    (one,) = run_all(SHORT, tmp_path)
    assert storing.read(tmp_path) == one.result


def test_models_that_were_to_be_kept_are_part_of_a_run(tmp_path: Path) -> None:
    keeping_all = SHORT.replaced({"record.models": True})
    run_all(keeping_all, tmp_path)
    assert run_all(keeping_all, tmp_path)[0].cached
    (tmp_path / "models.npz").unlink()
    assert not run_all(keeping_all, tmp_path)[0].cached
    assert (tmp_path / "models.npz").exists()


@pytest.mark.parametrize("name", ["run.json", "devices.jsonl", "sweep.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    run_all(SHORT, tmp_path)
    (tmp_path / name).write_bytes(b'{"runs": [{"label": "../x", "digest": ""}]}')
    with pytest.raises((DataError, ConfigError)):
        runs_in(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.json"):
        runs_in(tmp_path)


def test_tables_are_there_as_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (one,) = run_all(SHORT, tmp_path)
    rows = parquet.read_table(tmp_path / "devices.parquet").to_pylist()
    assert [r["bytes_up"] for r in rows] == [d.bytes_up for d in one.result.devices]
    assert [dict(r["skipped"]) for r in rows] == [d.skipped for d in one.result.devices]


def test_a_comparison_has_what_differs_alone(tmp_path: Path) -> None:
    a, b = run_all(SHORT, tmp_path, sweep={"seed": [0, 1]})
    assert [d.key for d in comparing.settings(a.result, b.result)] == ["seed"]
    assert comparing.results(a.result, a.result) == []
    found = comparing.results(a.result, b.result)
    assert "bytes_up" in [d.key for d in found]
    assert all(d.a != d.b for d in found)
    # An earlier release counted less.
    totals = msgspec.structs.replace(a.result.totals, opened=None, versions=None)
    assert comparing.results(msgspec.structs.replace(a.result, totals=totals), a.result) == []


def test_a_comparison_tells_shares_in_points_and_all_else_by_how_much_of_it() -> None:
    def told(key: str, a: float | None, b: float | None) -> str:
        return comparing.Difference(key, a, b).change_told

    assert told("accuracy", 0.916, 0.891) == "-2.5 points"
    assert told("joules_by_origin.assumed", 0.0, 0.5) == "+50.0 points"
    assert told("joules", 200.0, 150.0) == "-25.0 %"
    assert told("end.accuracy", 0.5, 0.75) == "+50.0 %"
    assert comparing.Difference("joules", 1.6733e7, 1.67330001e7).rounding
    assert comparing.Difference("imbalance", 1e-15, 8e-15).rounding
    assert not comparing.Difference("joules", 1.6733e7, 1.6734e7).rounding
    assert told("accuracy", None, 0.5) == told("joules", 0.0, 1.0) == ""


def test_a_comparison_says_what_runs_had_cost_when_they_were_equally_good(tmp_path: Path) -> None:
    (run,) = run_all(SHORT, tmp_path)
    first = run.result.rounds[0]

    def made(measure: str, *scores: float, refused: float = 0.0) -> Result:
        """Each version took ten bytes."""
        blank = msgspec.structs.replace(first, accuracy=None, loss=None)
        rows = [
            msgspec.structs.replace(blank, round=i, version=i, bytes_up=10 * i, **{measure: x})
            for i, x in enumerate(scores)
        ]
        if refused:
            rows.append(msgspec.structs.replace(rows[-1], version=None, **{measure: refused}))
        return msgspec.structs.replace(run.result, rounds=rows)

    found = comparing.results(made("accuracy", 0.1, 0.5, 0.9), made("accuracy", 0.2, 0.6, refused=1.0))
    assert [tuple(d) for d in found] == [
        ("to accuracy 0.6: round", 2, 1),
        ("to accuracy 0.6: bytes_up", 20, 10),
    ]
    found = comparing.results(made("loss", 3.0, 2.0, 1.0), made("loss", 0.5))
    assert [tuple(d) for d in found] == [("to loss 1: round", 2, 0), ("to loss 1: bytes_up", 20, 0)]


def test_the_command_runs_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.toml"
    path.write_text(TWO_PIS)
    out = str(tmp_path / "out")
    assert main(["sim", "run", str(path), "--output", out, "--sweep", "seed=3,4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [r["label"] for r in said] == ["seed=3", "seed=4"]
    assert main(["sim", "compare", f"{out}/seed=3", f"{out}/seed=4"]) == 0
    assert "seed" in capsys.readouterr().out
    assert main(["sim", "compare", out]) == 2
    assert main(["sim", "compare", out, f"{out}/seed=4"]) == 2
    assert f"name one of its folders, as {out}/seed=3" in capsys.readouterr().err
    assert main(["sim", "run", str(path), "--sweep", "seed"]) == 2


@pytest.mark.parametrize("columns", range(60, 130, 7))
def test_a_table_fits_the_terminal_and_keeps_its_names(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    names = [f"training.batch_size={i}, seed={i}" for i in range(3)]
    rows = [(name, *(["123 kJ"] * 6)) for name in names]
    tables.show("title", ("run", *"abcdef"), rows, right=range(1, 7))
    lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= columns
    assert all(any(name in line for line in lines) for name in names)


def test_set_changes_a_value_and_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\n[end]\nrounds = 9\n[model]\nbuilt_in = "softmax"\n[data]\nsamples = 10\n'
        '[sweep]\n"data.samples" = [10]\n[[devices]]\nname = "pi"\ncount = 9\nspeed.sample_s = 0.1\n'
    )
    command = ["sim", "run", str(path), "--output", str(tmp_path / "out"), "--json"]
    assert main([*command, "--set", "end.rounds=1", "--set", "devices.pi.count = 2"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["label"] == "data.samples=10"
    assert (said["totals"]["rounds"], said["totals"]["devices"]) == (1, 2)
    for text, told in (
        ("data.samples=8", "--sweep data.samples=8"),
        ("end.rounds", "KEY=VALUE"),
        ("no.key=1", "no"),
    ):
        assert main([*command, "--set", text]) == 2
        assert told in capsys.readouterr().err
    for option, value in (("--seed", "5"), ("--set", "seed=5")):
        assert main([*command, "--sweep", "seed=1,2", option, value]) == 2
        assert "--sweep seed=5" in capsys.readouterr().err
