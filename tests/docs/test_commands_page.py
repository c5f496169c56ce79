"""docs/commands.md has every command and option of the parser, every exit code, and every kind of note."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from laconic import cli, errors, exit_codes
from laconic.demo.data import split_digits
from laconic.demo.results import DemoResult
from laconic.demo.settings import Settings
from laconic.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGE = (DOCS / "commands.md").read_text()
EXITS = (DOCS / "exit-codes.md").read_text()
DEMO = (DOCS / "demo.md").read_text()
PACKAGE = REPOSITORY / "src" / "laconic"
SPEAKERS = {"coordinator": ("coordinator",), "edge_sdk": ("device",), "transport": ("both",)}


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every subcommand's parser."""
    return dict(commands(cli._parser(), ""))


def commands(parser: argparse.ArgumentParser, above: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for found in (a for a in parser._actions if isinstance(a, argparse._SubParsersAction)):
        for name, inner in found.choices.items():
            yield from list(commands(inner, f"{above}{name} ")) or [(above + name, inner)]


def chapter(title: str) -> str:
    """The text under a second-level heading."""
    parts = re.split(r"^## (.+)\n", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def table(text: str) -> list[list[str]]:
    """Rows of the tables in a text, without their heads."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    heads = [i for i, row in enumerate(rows) if row[0].startswith("---")]
    return [row for i, row in enumerate(rows) if i not in heads and i + 1 not in heads]


def test_every_command_has_its_chapter_and_no_other_has() -> None:
    titles = re.findall(r"^## `laconic ([\w ]+)`$", PAGE, flags=re.MULTILINE)
    assert titles == list(parsers())


@pytest.mark.parametrize("name", list(parsers()))
def test_every_option_is_in_the_table_with_its_default(name: str) -> None:
    documented = {row[0]: row[1] for row in table(chapter(f"`laconic {name}`"))}
    expected = {}
    for action in parsers()[name]._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        names = ", ".join(f"`{o}`" for o in action.option_strings) or f"`{action.dest}`"
        expected[names] = "required" if action.required else str(action.default)
    assert set(documented) == set(expected)
    for option, default in expected.items():
        if default not in ("None", "False"):
            assert documented[option].strip("`") == default, option
    if name == "demo":
        assert documented["`--rounds`"] == str(Settings().rounds)
        assert f"({Settings().rounds}, if `--rounds`" in DEMO


CODES = {value: name for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}


def test_every_exit_code_has_its_section_and_its_errors() -> None:
    rows = table(EXITS)
    assert [int(re.match(r"\[(\d+)\]", row[0])[1]) for row in rows] == sorted(CODES)  # type: ignore[index]
    headings = dict(re.findall(r"^## (\d+): (.+)$", EXITS, flags=re.MULTILINE))
    for row, code in zip(rows, sorted(CODES), strict=True):
        title = headings.pop(str(code))
        assert title == row[1]
        assert row[0] == f"[{code}](#{code}-{title.replace(' ', '-')})"
        for name in re.findall(r"`(\w+)`", row[2]):
            assert exit_codes.exit_code(error(name)) == code, name
    assert not headings


def test_every_error_has_its_exit_code() -> None:
    named = {name for row in table(EXITS) for name in re.findall(r"`(\w+)`", row[2])}
    assert named == {e for e, kind in vars(errors).items() if isinstance(kind, type)} - {"LaconicError"}


def error(name: str) -> errors.LaconicError:
    kind = getattr(errors, name)
    if kind is errors.UnsupportedOperator:
        return errors.UnsupportedOperator("If", domain="", opset=18, node="n", remedy="")
    made: errors.LaconicError = kind("thing")
    return made


def test_the_explained_frame_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"\$ laconic (codec inspect (\S+))\n(.+?)```", chapter("`laconic codec`"), re.DOTALL)
    assert shown
    assert cli.main(["codec", "inspect", str(REPOSITORY / shown[2])]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown[3].splitlines()


def test_the_demonstrations_most_devices() -> None:
    most = re.search(r"how many devices, 1 to (\d+)", PAGE)
    assert most
    split_digits(int(most[1]), skew=0.9, seed=0)
    with pytest.raises(ConfigError):
        split_digits(int(most[1]) + 1, skew=0.9, seed=0)


def test_every_figure_of_the_demonstration_is_explained() -> None:
    explained = {f for row in table(DEMO) for f in re.findall(r"`(\w+)`", row[0])}
    told_otherwise = {"broker", "settings", "report", "machine", "version"}
    assert explained == set(DemoResult.__struct_fields__) - told_otherwise


# --- notes -------------------------------------------------------------------------------------------------


def documented_notes() -> dict[tuple[str, str], set[str]]:
    """Fields by who says it and kind."""
    return {
        (row[1], row[0].strip("`")): set(re.findall(r"`(\w+)`", row[2])) for row in table(chapter("Notes"))
    }


def notes_in(source: str) -> Iterator[tuple[str, set[str]]]:
    """Kind and literal fields of every `Note(...)` in a module."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Note":
            kind, *rest = call.args
            if isinstance(kind, ast.Constant):
                keys = rest[0].keys if rest and isinstance(rest[0], ast.Dict) else []
                yield str(kind.value), {str(k.value) for k in keys if isinstance(k, ast.Constant)}


def test_every_note_in_the_code_is_in_the_table_and_the_other_way_round() -> None:
    documented = documented_notes()
    said: set[tuple[str, str]] = set()
    for package, speakers in SPEAKERS.items():
        for path in (PACKAGE / package).rglob("*.py"):
            for kind, fields in notes_in(path.read_text()):
                for who in speakers:
                    said.add((who, kind))
                    assert fields - {"campaign"} <= documented[who, kind], f"{kind} in {path.name}"
    assert said == set(documented)
