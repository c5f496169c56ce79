"""The tables of docs/power.md are those of the code, and its meter can be loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from laconic.edge_sdk.power import BOARDS, RADIOS
from laconic.edge_sdk.readers import load

PAGE = (Path(__file__).parents[2] / "docs" / "power.md").read_text()


def rows(head: str) -> dict[str, list[list[float]]]:
    """Rows of the table whose first column is `head`: the numbers of each cell, by name."""
    table = PAGE.split(f"\n| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {
        name.strip("`"): [[float(n) for n in cell.split(",")] for cell in rest[:3]]
        for name, *rest, _ in cells
    }


def test_boards_are_those_of_the_code() -> None:
    assert rows("board") == {n: [[b.idle_w], [b.load_w], [b.cores]] for n, b in BOARDS.items()}


def test_radios_are_those_of_the_code() -> None:
    expected = {
        n: [
            [round(r.alpha_up, 2), round(r.alpha_down, 2)],
            [r.beta_mw],
            [pytest.approx(r.burst_joules, abs=5e-3)],
        ]
        for n, r in RADIOS.items()
    }
    assert rows("radio") == expected


def test_the_meter_of_the_page_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"```python\n# (my_meter\.py)\n(.*?)```", PAGE, re.DOTALL)
    assert found
    # Under a name of its own: another test may have loaded a module of that name.
    (tmp_path / "meter_of_the_page.py").write_text(found[2])
    (tmp_path / "watts").write_text("4.25\n")
    monkeypatch.syspath_prepend(tmp_path)
    reader = load("meter_of_the_page:Meter", {"path": str(tmp_path / "watts")})
    assert reader.read().power_w == 4.25
