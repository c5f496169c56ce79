"""docs/tutorial.md can be typed: scripts/tutorial does it; here its reading of the page, nothing is run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import tutorial

FOUND = list(tutorial.blocks(tutorial.PAGE.read_text()))


def test_every_block_is_known_and_nothing_is_left_over() -> None:
    assert len(FOUND) == tutorial.PAGE.read_text().count("\n```") / 2
    terminals = {b.mark.removeprefix("terminal=") for b in FOUND if b.language == "sh" and b.mark}
    files: set[str] = set()
    for block in FOUND:
        kind, _, name = block.mark.partition("=")
        match block.language, kind:
            case "sh", "" | "terminal":
                pass
            case "text", "":
                pass
            case "text", "terminal" | "interrupt":
                assert name in terminals
            case _, "append":
                assert name in files
            case _:
                assert block.mark, f"line {block.line}: a file has a name"
                files.add(block.mark)
    assert {"coordinator", "pi-1", "pi-2"} <= terminals


@pytest.mark.parametrize("block", [b for b in FOUND if b.language == "sh"], ids=lambda b: f"line {b.line}")
def test_every_command_is_shell(block: tutorial.Block) -> None:
    subprocess.run(["bash", "-n"], input=block.content, text=True, check=True)


def test_what_is_promised_must_be_printed_in_this_order() -> None:
    printed = ["a  b 1", "c", "a b 2"]
    assert tutorial.matches("a b 1\n...\na ... 2\n", printed) == (3, "")
    assert tutorial.matches("a b 2\nc\n", printed) == (3, "c")
    assert tutorial.matches("a b\n", printed) == (0, "a b")
    assert tutorial.matches("a b...\n", printed, 1) == (3, "")


@pytest.mark.parametrize(
    "command", ["rm -rf /etc", "cp x", "systemctl stop sshd", "apt-get remove -y x", "sh -c true"]
)
def test_what_is_not_known_to_be_harmless_is_not_done(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    if command.startswith("cp"):
        assert tutorial.as_root(command.split()) != 0
    else:
        with pytest.raises(SystemExit):
            tutorial.as_root(command.split())
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "root"])
