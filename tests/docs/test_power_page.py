"""The tables of docs/power.md are those of the code, and its meter can be loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from laconic.edge_sdk.power import radio_costs
from laconic.edge_sdk.readers import load
from laconic.profiles import profiles

PAGE = (Path(__file__).parents[2] / "docs" / "power.md").read_text()


def rows(head: str) -> dict[str, list[list[float]]]:
    """Rows of the table whose first column is `head`: the numbers of each cell behind the words, by name."""
    table = PAGE.split(f"\n| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {
        name.strip("`"): [[float(n) for n in cell.split(",")] for cell in rest] for name, _, *rest in cells
    }


def test_boards_are_those_of_the_profiles() -> None:
    expected = {n: [[b.idle_w.value], [b.load_w.value], [b.cores]] for n, b in profiles().boards.items()}
    assert rows("board") == expected


def test_radios_are_those_of_the_profiles() -> None:
    costs = {n: radio_costs(r) for n, r in profiles().radios.items()}
    expected = {
        n: [
            [pytest.approx(j * 1e6, rel=0.01) for j in (c.up_j_per_byte, c.down_j_per_byte)],
            [pytest.approx(c.burst_j, rel=0.01)],
        ]
        for n, c in costs.items()
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
