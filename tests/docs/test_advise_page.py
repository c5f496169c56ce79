"""docs/advise.md: its data can be made and asked about, and every column of the answer is explained."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from test_configuration_page import REPOSITORY

from laconic.cli import main
from laconic.exit_codes import OK

PAGE = (REPOSITORY / "docs" / "advise.md").read_text()


def test_the_page_s_own_data_give_an_answer_of_the_page_s_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (_, program), (_, command), (_, answer) = blocks[:3]
    exec(program, {})
    name, *arguments = shlex.split(command.removeprefix("$ "))
    assert name == "laconic"
    # One size of two rounds: the page's own takes 9 s.
    assert main([*arguments, "--devices", "2", "--rounds", "2", "--threads", "1"]) == OK
    printed, told = capsys.readouterr().out.splitlines(), answer.splitlines()
    assert (printed[0], printed[1].split()) == (told[0], told[1].split())
    assert printed[-1] == told[-1]
    columns = re.split(r"\s{2,}", told[1].strip())
    explained = re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\|([^|]+)\|", PAGE, re.MULTILINE)))
    assert columns == ["devices", *(c for c in explained if c in columns)]
