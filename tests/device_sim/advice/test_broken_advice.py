"""Traces of faults: examples and options with which `laconic sim advise` once ended badly, or lied."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from laconic.cli import main
from laconic.device_sim.advice.answer import answer, verdict
from laconic.device_sim.advice.diverging import doubts
from laconic.device_sim.advice.question import Question, asked
from laconic.device_sim.advice.reading import Given, Labels, read
from laconic.device_sim.scenario.examples import examples_of
from laconic.device_sim.scenario.sweep import Run, run_all
from laconic.errors import ConfigError, DataError
from laconic.exit_codes import CONFIGURATION, OK

Y = Labels("y")


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def given(*sizes: int) -> Given:
    owner = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(owner), 3)).astype(np.float32)
    names = tuple(f"d{i}" for i in range(len(sizes)))
    return Given(x, np.arange(len(owner)) % 2, owner.astype(np.int64), names)


def test_columns_are_known_by_their_names_in_every_file(tmp_path: Path) -> None:
    # One device's wind was another one's sky.
    found = read(write(tmp_path, a="p,q,y\n1,2,a\n", b="y,q,p\nb,2,1\n"), Y, None)
    assert found.x.tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    "text",
    [
        "p,p,y\n1,2,a\n",
        ",,y\n1,2,a\n",
        "p,y,y\n1,a,b\n",
        "y\na\nb\n",
        "p,y\n1,nan\n2,1\n",
        "p,y\n1,inf\n2,1\n",
        "p,y\n1,\n2,1\n",
    ],
)
def test_tables_that_say_two_things_or_nothing_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read(write(tmp_path, a=text), Y, None)


def test_files_of_other_columns_are_refused_by_the_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.csv.*q2"):
        read(write(tmp_path, a="p,q,y\n1,2,a\n", b="p,q2,y\n1,2,b\n"), Y, None)


def test_a_file_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="a device"):
        read(tmp_path, Y, None)


def test_too_few_examples_are_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="examples to learn from, found 1, allowed 2 or more"):
        asked(given(2), Question("softmax"), tmp_path)


@pytest.mark.parametrize("examples", [3, 5, 12, 30])
def test_a_short_file_is_divided_among_fewer_devices(examples: int, tmp_path: Path) -> None:
    # Sixteen had one example each, none of which was kept, and the mean of no scores was taken.
    scenario = asked(given(examples), Question("softmax"), tmp_path)
    for count in scenario.settings.sweep["devices.device.count"]:
        own = examples_of(scenario.settings.data, count, 0, tmp_path).own
        assert sum(len(part.y) for part in own) > 0


@pytest.mark.parametrize("sizes", [(1,), (2,), (1, 1), (30, 1), (1,) * 6])
def test_devices_that_can_keep_nothing_are_refused(sizes: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"examples|devices"):
        asked(given(*sizes), Question("softmax"), tmp_path)


@pytest.mark.parametrize(
    "option",
    [
        "--rounds=0",
        "--rounds-a-day=inf",
        "--rounds-a-day=nan",
        "--epochs=0",
        "--batch-size=0",
        "--learning-rate=nan",
        "--learning-rate=inf",
        "--sample-ms=inf",
        "--seeds=0",
    ],
)
def test_options_that_are_no_numbers_are_refused_by_their_name(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", "advise", str(tmp_path), "--model", "softmax", option]) != OK
    assert option.partition("=")[0] in capsys.readouterr().err


def test_a_loss_that_nothing_would_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(write(tmp_path, a="p,y\n1,0.5\n2,1\n"))
    assert main(["sim", "advise", folder, "--label", "y", "--model", "linear", "--loss", "mae"]) != OK
    assert "--loss" in capsys.readouterr().err


def regressed(folder: Path, files: int, scale: float) -> str:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(files):
        x = rng.normal(size=(40, 3)).astype(np.float32)
        y = x @ np.array([1, 2, -1]) + 0.1 * rng.normal(size=40)
        np.savez(folder / f"d{i}.npz", x=scale * x, y=(scale * y).astype(np.float32))
    return str(folder)


# A rate at which trainings fail, and one at which they only end worse.
@pytest.mark.parametrize(("rate", "rounds"), [("0.1", "3"), ("0.02", "1")])
def test_training_that_diverged_is_no_verdict(
    rate: str, rounds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    folder = regressed(tmp_path / "data", 3, 10.0)
    arguments = ["sim", "advise", folder, "--model", "linear", "--rounds", rounds, "--devices", "1,3",
                 "--threads", "1", "--output", str(output)]  # fmt: skip
    for _ in range(2):
        # The second time from files.
        assert main([*arguments, "--learning-rate", rate]) == CONFIGURATION
        told = capsys.readouterr()
        assert "diverged" in told.err
        assert "orth it" not in told.out
        assert not (output / "advice.png").exists()
    remedy = re.search(r"try --learning-rate (\S+),", told.err)
    assert remedy
    assert float(remedy[1]) == pytest.approx(float(rate) / 10)
    assert main([*arguments, "--learning-rate", "1e-3", "--rounds", "5", "--json"]) == OK
    assert "orth it" in capsys.readouterr().out


def advised(folder: Path, rng: np.random.Generator, weights: Callable[[], Any], noise: float) -> list[str]:
    """The lines of an answer on six devices' straight lines, each with weights of its own."""
    for i in range(6):
        x = rng.normal(size=(60, 8)).astype(np.float32)
        y = (x @ weights() + noise * rng.normal(size=60)).astype(np.float32)
        np.savez(folder / f"d{i}.npz", x=x, y=y)
    scenario = asked(
        read(folder, Labels(), None), Question("linear", rounds=5, devices=(1, 4)), folder / "out"
    )
    runs = run_all(scenario, folder / "out")
    said = doubts(scenario, runs)
    return [*verdict(answer(runs, newcomers=False), "rpi_4b"), *said]


def test_devices_that_contradict_one_another_have_not_diverged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = advised(tmp_path, rng, lambda: rng.normal(size=8), 0.1)
    assert any("better off alone" in line for line in words)
    assert not any("learnt" in line for line in words)


def test_where_there_is_nothing_to_be_learnt_a_verdict_says_so(tmp_path: Path) -> None:
    words = advised(tmp_path, np.random.default_rng(0), lambda: np.zeros(8), 1.0)
    assert any(line.startswith("Not worth it") for line in words)
    assert words[-1].startswith("Nothing was learnt")


def test_few_trainings_that_failed_leave_a_verdict_and_many_none(tmp_path: Path) -> None:
    data = read(Path(regressed(tmp_path / "data", 2, 1.0)), Labels(), None)
    scenario = asked(data, Question("linear", rounds=10, devices=(2,)), tmp_path / "out")
    (run,) = run_all(scenario, tmp_path / "out")
    for times, refused in ((2, False), (3, True)):
        totals = msgspec.structs.replace(run.result.totals, failures={"too large": times})
        failing = [Run(run.label, run.folder, msgspec.structs.replace(run.result, totals=totals))]
        if refused:
            with pytest.raises(
                ConfigError, match="3 of 20 of the fleet's trainings came to nothing: too large"
            ):
                doubts(scenario, failing)
        else:
            assert doubts(scenario, failing) == [
                "2 of 20 of the fleet's trainings came to nothing: too large."
            ]


def test_a_loss_that_is_not_finite_is_no_score(tmp_path: Path) -> None:
    data = read(Path(regressed(tmp_path / "data", 2, 1.0)), Labels(), None)
    scenario = asked(data, Question("linear", rounds=1, devices=(2,)), tmp_path / "out")
    (run,) = run_all(scenario, tmp_path / "out")
    doubts(scenario, [run])
    # None is what becomes of infinity in a file.
    for loss in (float("inf"), float("nan"), None):
        last = msgspec.structs.replace(run.result.scores[-1], alone_loss=loss)
        result = msgspec.structs.replace(run.result, scores=[*run.result.scores[:-1], last])
        with pytest.raises(ConfigError, match=r"diverged.*finite"):
            doubts(scenario, [Run(run.label, run.folder, result)])


def test_a_day_costs_much_the_same_by_one_round_as_by_four(tmp_path: Path) -> None:
    # A run ends with its last round: by its hours alone one round was some thousand a day.
    data = read(Path(regressed(tmp_path / "data", 2, 1.0)), Labels(), None)
    bytes_up = []
    for rounds in (1, 4):
        scenario = asked(data, Question("linear", rounds=rounds, devices=(2,)), tmp_path / "asked")
        found = answer(run_all(scenario, tmp_path / str(rounds)), newcomers=False)
        bytes_up.append(found.sizes[0].bytes_up)
    assert bytes_up[0] == pytest.approx(bytes_up[1], rel=0.5)


def test_a_division_that_a_folder_has_already_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = regressed(tmp_path / "data", 2, 1.0)
    output = tmp_path / "out"
    for division in ("own_class", "uniform"):
        arguments = ["--model", "linear", "--division", division, "--output", str(output)]
        assert main(["sim", "advise", folder, *arguments]) == CONFIGURATION
        assert f"--division, found {division}, allowed with a single file" in capsys.readouterr().err
    assert not output.exists()


def test_a_path_that_is_not_there_is_said_not_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sim", "advise", "nosuch", "--model", "linear"]) == CONFIGURATION
    assert f"there is no {tmp_path / 'nosuch'}" in capsys.readouterr().err
