"""The examples, run as docs/demo.md says: coordinator, two devices by file, one embedded in a program."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_commands_page import documented_notes

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def fleet_folder(tmp_path: Path) -> Path:
    """The examples in a folder of their own, with the files that they need, made as the page says."""
    for name in ("coordinator.toml", "device.toml", "embed.py", "make_files.py"):
        shutil.copy(REPOSITORY / "examples" / name, tmp_path)
    runpy.run_path(str(tmp_path / "make_files.py"))
    command = [sys.executable, "-m", "laconic.cli", "prepare", "digits.onnx", "-o", "digits.bundle"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return iter(process.stdout.readline, "")


@pytest.mark.broker
def test_the_examples_run(
    fleet_folder: Path,
    mosquitto_path: str,
    free_port: int,
    start: Callable[..., subprocess.Popen[str]],
    answers: Callable[[int], None],
) -> None:
    start(mosquitto_path, "-p", str(free_port))
    answers(free_port)
    url = f"mqtt://127.0.0.1:{free_port}"
    laconic = [sys.executable, "-m", "laconic.cli"]
    devices = [
        start(*laconic, "device", "--json", "--config", "device.toml", LACONIC_BROKER_URL=url, **own)
        for own in ({}, {"LACONIC_DEVICE_NAME": "pi-1", "LACONIC_DEVICE_DATA": "pi-1.npz"})
    ]
    program = start(sys.executable, "embed.py", "pi-2", url)
    coordinator = start(
        *laconic,
        *("coordinator", "--json", "--config", "coordinator.toml"),
        LACONIC_BROKER_URL=url,
        LACONIC_ROUNDS_EXIT_WHEN_FINISHED="true",
    )
    notes = [json.loads(line) for line in lines(coordinator)]
    assert coordinator.wait(10) == 0
    for line in lines(program):
        if re.match(r"model version [1-9]\d*: \d+% of my own digits", line):
            break
        assert line.startswith("model version 0"), line
    program.send_signal(signal.SIGINT)
    assert list(lines(program))[-1] == "stopping\n"
    assert program.wait(10) == 0
    for device in devices:
        device.terminate()
        notes += [json.loads(line) for line in lines(device)]
        assert device.wait(10) == 0

    assert {n["device"] for n in notes if n["kind"] == "committed" and n["who"] == "coordinator-default"} == {
        "pi-0",
        "pi-1",
        "pi-2",
    }
    documented = documented_notes()
    for note in notes:
        speaker = "coordinator" if note["who"] == "coordinator-default" else "device"
        fields = set(note) - {"at", "who", "kind", "level", "campaign"}
        said_by = speaker if (speaker, note["kind"]) in documented else "both"
        expected = documented[said_by, note["kind"]]
        assert fields <= expected, note
        if note["kind"] not in ("closed", "dropped"):
            assert fields == expected, note
