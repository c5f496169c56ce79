"""docs/datasets.md has the addresses and digests that are fetched from, and its own data make a scenario."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_configuration_page import REPOSITORY

from laconic.device_sim import Scenario, run
from laconic.device_sim.datasets import cmapss, har, mnist
from laconic.device_sim.scenario.settings import SOURCES

PAGE = (REPOSITORY / "docs" / "datasets.md").read_text()


def test_what_is_fetched_is_what_the_page_says() -> None:
    rows = re.findall(r"^\| \[(.+?)\]\((.+?)\) \| ([\d,]+) \| `(\w+)` \|$", PAGE, flags=re.MULTILINE)
    files = [*mnist.FILES, cmapss.ARCHIVE, har.ARCHIVE]
    assert [(f.name, f.url, f"{f.size_bytes:,}", f.sha256) for f in files] == rows
    assert re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE) == sorted(
        SOURCES, key=lambda s: PAGE.index(f"| `{s}` |")
    )


def test_ones_own_data_make_a_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    python, toml = (re.findall(rf"```{kind}\n(.+?)```", PAGE, re.DOTALL)[-1] for kind in ("python", "toml"))
    exec(python, {})
    (tmp_path / "pumps.toml").write_text(toml)
    result = run(Scenario.read(tmp_path / "pumps.toml").replaced({"end.rounds": 2}))
    assert result.totals.rounds == 2
    assert [row.accuracy for row in result.rounds] == [None] * len(result.rounds)
    assert all(row.loss is not None for row in result.rounds)


@pytest.mark.data
def test_the_sensors_that_vary_are_those_of_the_page(shared_data: Path) -> None:
    train = cmapss.read_engines(shared_data / "cmapss", "FD001", "train")
    columns = cmapss.scale_of_training(train).columns
    told = re.search(r"in FD001 these 14: ([\d, \n]+)\.", PAGE)
    assert told
    assert [cmapss.CHANNELS[c] for c in columns] == [f"s{n}" for n in re.findall(r"\d+", told[1])]
