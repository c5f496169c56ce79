"""docs/operating.md has every metric, request, level and restart rule that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

from laconic.coordinator.metrics import METRICS
from laconic.coordinator.status import Request
from laconic.node import Note
from laconic.transport.process import LEVELS, level_of

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "operating.md").read_text()
UNIT = (REPOSITORY / "packaging" / "laconic-coordinator.service").read_text()
EXITS = (REPOSITORY / "docs" / "exit-codes.md").read_text()
COMMANDS = (REPOSITORY / "docs" / "commands.md").read_text()


def rows(title: str, head: str) -> list[list[str]]:
    """The table of a chapter whose first heading is `head`."""
    text = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    table = re.search(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    assert table
    return [[c.strip() for c in line.strip("|").split("|")] for line in table[1].splitlines()]


def words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_metric_is_in_the_table() -> None:
    documented = [(words(r[0])[0], tuple(words(r[1])), r[2].lower()) for r in rows("Metrics", "metric")]
    assert documented == [(m.name, m.labels, m.help.lower()) for m in METRICS]


def test_every_request_is_in_the_table() -> None:
    table = rows("The control socket", "`ask`")
    assert {w for r in table for w in words(r[0])} == set(get_args(get_type_hints(Request)["ask"]))
    assert {w for r in table for w in words(r[1])} == set(Request.__struct_fields__) - {"ask"}


def test_every_kind_of_note_has_the_level_of_the_table() -> None:
    table = {words(r[0])[0]: set(re.findall(r"`([\w ]+)`", r[1])) for r in rows("Logs", "level")}
    assert set(table) == set(LEVELS)
    kinds = set(re.findall(r"^\| `([\w ]+)` \| (?:coordinator|device|both)", COMMANDS, flags=re.MULTILINE))
    for kind in kinds:
        said = next((level for level, named in table.items() if kind in named), "info")
        assert level_of(Note(kind)) == said, kind
    assert set().union(*table.values()) <= kinds


def test_the_unit_restarts_when_it_may_help() -> None:
    again = {int(m[1]): m[2] for m in re.finditer(r"^\| \[(\d+)\].*\| (yes|no|) \|$", EXITS, re.MULTILINE)}
    stated = re.search(r"^RestartPreventExitStatus=(.+)$", UNIT, flags=re.MULTILINE)
    assert stated
    # Those of other commands never end a coordinator.
    assert {int(c) for c in stated[1].split()} == {c for c, a in again.items() if a == "no"} - {9, 10}
    assert re.search(r"^Restart=on-failure$", UNIT, flags=re.MULTILINE)
    assert re.search(r"^Type=notify$", UNIT, flags=re.MULTILINE)
