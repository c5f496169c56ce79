"""`laconic sim advise`: what is read, the fleets that are made of it, and what is said of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.cli import main
from laconic.device_sim.advice.answer import Answer, Size, verdict
from laconic.device_sim.advice.question import NEWCOMERS, Question, asked
from laconic.device_sim.advice.reading import Given, Labels, read
from laconic.device_sim.scenario.examples import examples_of
from laconic.errors import ConfigError, DataError

WORDS = ("calm", "storm")


def table(path: Path, rows: list[tuple[float, float, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["wind", "sky", "rain"])
        writer.writerows(rows)


def weather(folder: Path, sites: int, each: int = 30) -> None:
    """Sites where the same wind means the same, but of which each sees another part of it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for site in range(sites):
        wind = rng.normal(size=(each, 2))
        labels = [WORDS[int(a + b > 0)] for a, b in wind]
        rows = [(float(a), float(b), label) for (a, b), label in zip(wind, labels, strict=True)]
        table(folder / f"site{site}.csv", rows)


def test_a_folder_of_tables_is_a_device_each(tmp_path: Path) -> None:
    weather(tmp_path, 3, each=5)
    found = read(tmp_path, Labels("rain"), None)
    assert found.names == ("site0", "site1", "site2")
    assert found.owner.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert found.x.shape == (15, 2)
    assert found.x.dtype == np.float32
    assert np.array_equal(found.y, (found.x.sum(axis=1) > 0).astype(int))


def test_numbers_with_a_fraction_are_regressed(tmp_path: Path) -> None:
    table(tmp_path / "a.csv", [(1.0, 2.0, "0.5"), (3.0, 4.0, "7")])
    found = read(tmp_path, Labels("rain"), None)
    assert found.y.dtype == np.float32
    assert found.y.tolist() == [0.5, 7.0]


def test_a_class_is_a_whole_number_s_place_among_all(tmp_path: Path) -> None:
    table(tmp_path / "a.csv", [(1.0, 2.0, "10"), (3.0, 4.0, "2")])
    assert read(tmp_path, Labels("rain"), None).y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda d: None, "examples in"),
        (lambda d: (d / "a.txt").write_text("x"), "examples in"),
        (lambda d: (d / "a.csv").write_text("wind,sky\n1,2\n"), "columns of"),
        (lambda d: (d / "a.csv").write_text("wind,rain\nx,1\n"), "wind"),
        (lambda d: (d / "a.csv").write_bytes(b"wind,rain\n\xff\x00,1\n"), "wind"),
        (lambda d: (d / "a.npz").write_bytes(b"PK"), "a.npz"),
        (lambda d: np.savez(d / "a.npz", x=np.zeros(0), y=np.zeros(0)), "examples in"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, write: object, error: str) -> None:
    assert callable(write)
    write(tmp_path)
    with pytest.raises((ConfigError, DataError), match=error):
        read(tmp_path, Labels("rain"), None)


def test_files_that_do_not_match_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3), np.float32), y=np.arange(4))
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 2), np.float32), y=np.arange(4))
    with pytest.raises(DataError, match=r"b\.npz"):
        read(tmp_path, Labels(), None)


@settings(max_examples=15, deadline=None)
@given(files=st.integers(1, 12), seed=st.integers(0, 9))
def test_nobody_learns_from_what_is_held_out(
    tmp_path_factory: pytest.TempPathFactory, files: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("asked")
    x = np.arange(20 * files, dtype=np.float32)[:, None]
    owner = np.repeat(np.arange(files), 20)
    mine = Given(x, np.arange(len(x)) % 2, owner, tuple(f"f{i}" for i in range(files)))
    scenario = asked(mine, Question("softmax", rounds=1), folder, seed=seed)
    learners: dict[int, set[float]] = {}
    for _, one in scenario.swept({}):
        s = one.settings
        count = s.devices[0].count or 0
        found = examples_of(s.data, count, s.seed, folder)
        learnt = [set(part.x.ravel().tolist()) for part in found.devices]
        assert not set.union(*learnt) & set(found.held_out.x.ravel().tolist())
        assert not any(a & b for i, a in enumerate(learnt) for b in learnt[:i])
        learners[count] = {v // 20 for values in learnt for v in values}
        if files > 1:
            assert len(learners[count]) == count
        if files >= NEWCOMERS:
            newcomers = {v // 20 for v in found.held_out.x.ravel().tolist()}
            assert not newcomers & learners[count]
    assert list(learners) == sorted(learners)
    assert min(learners) == 1


def size(devices: int, alone: float, federated: float, error: float = 0.01) -> Size:
    gain = federated - alone
    return Size(devices, alone, federated, 0.95, gain, error, None, None, None, 1e3, 1e3, 5.0, 1e5)


@pytest.mark.parametrize(
    ("sizes", "begins"),
    [
        ([size(1, 0.7, 0.7), size(8, 0.7, 0.9)], "Worth it: with 8 devices federation brings 20.0 ± 1.0"),
        ([size(1, 0.7, 0.7), size(8, 0.9, 0.7)], "Not worth it: with 8 devices each is better off alone"),
        ([size(1, 0.7, 0.7), size(8, 0.7, 0.71)], "Not worth it: with 8 devices nothing is gained"),
        ([size(1, 0.7, 0.7)], "One device has nobody"),
    ],
)
def test_the_verdict_is_that_of_the_figures(sizes: list[Size], begins: str) -> None:
    words = verdict(Answer(tuple(sizes), True, False), "rpi_4b")
    assert words[0].startswith(begins)
    assert "1\N{NO-BREAK SPACE}kB up" in words[-1]


def test_sites_that_share_a_rule_are_told_to_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weather(tmp_path / "sites", NEWCOMERS, each=14)
    arguments = ["sim", "advise", str(tmp_path / "sites"), "--model", "softmax", "--label", "rain",
                 "--rounds", "3", "--learning-rate", "0.5", "--devices", "1,4", "--threads", "1",
                 "--output", str(tmp_path / "out")]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [s["devices"] for s in found["sizes"]] == [1, 4]
    assert all(s["bytes_up"] > 0 and s["joules"] > 0 for s in found["sizes"])
    assert found["sizes"][1]["newcomer_federated"] is not None
    # The second time nothing is run again, and people are shown the same figures.
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert found["verdict"][0] in shown
    assert (tmp_path / "out" / "advice.png").stat().st_size > 10_000
