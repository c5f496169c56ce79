"""Laws of packaging/: systemd takes the units, their commands are ours, the page says why they are so."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from laconic import cli

REPOSITORY = Path(__file__).resolve().parents[2]
UNITS = sorted((REPOSITORY / "packaging").glob("*.service"))
DEVICE = (REPOSITORY / "packaging" / "laconic-device.service").read_text()
OPERATING = (REPOSITORY / "docs" / "operating.md").read_text()
EXITS = (REPOSITORY / "docs" / "exit-codes.md").read_text()


def command_of(unit: str) -> list[str]:
    found = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    assert len(found) == 1
    return shlex.split(found[0])


def test_there_are_units() -> None:
    assert {"laconic-coordinator.service", "laconic-device.service"} <= {u.name for u in UNITS}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.name)
def test_systemd_has_nothing_to_say_of_a_unit(unit: Path, tmp_path: Path) -> None:
    # Where it is not installed, systemd would say only that.
    text = unit.read_text().replace(command_of(unit.read_text())[0], sys.executable)
    copy = tmp_path / unit.name
    copy.write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (said.returncode, said.stderr) == (0, "")
    copy.write_text(text + "[Service]\nMemoryMaximum=1M\n")
    said = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "MemoryMaximum" in said.stderr, "a mistake would have been seen"


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.name)
def test_what_a_unit_starts_is_a_command_of_ours(unit: Path) -> None:
    program, *arguments = command_of(unit.read_text())
    assert program == "/usr/local/lib/laconic/bin/laconic"
    options = cli._options(arguments)
    assert options.name == unit.stem.removeprefix("laconic-")
    config = options.config if isinstance(options.config, list) else [options.config]
    assert config == [Path(f"/etc/laconic/{options.name}.toml")]
    assert options.json


def test_a_device_is_started_again_when_that_may_help() -> None:
    never = {int(m[1]) for m in re.finditer(r"^\| \[(\d+)\].*\| no \|$", EXITS, re.MULTILINE)}
    stated = re.search(r"^RestartPreventExitStatus=(.+)$", DEVICE, re.MULTILINE)
    assert stated
    # 9 and 10 are other commands'; a store may be mended, or its disk mounted, while the device waits (4).
    assert {int(code) for code in stated[1].split()} == never - {4, 9, 10}


def test_every_line_that_the_page_explains_is_in_the_unit() -> None:
    section = OPERATING.split("\n## A device under systemd\n")[1]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    explained = [line for cell in cells for line in re.findall(r"`([^`]+)`", cell)]
    assert len(explained) > 10
    for line in explained:
        assert re.search(rf"^{re.escape(line)}", DEVICE, re.MULTILINE), line
