"""`python -m laconic` is the `laconic` command, exit code and all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from laconic import __version__


@pytest.mark.parametrize(
    ("arguments", "code", "said"), [(["--version"], 0, f"laconic {__version__}"), (["nosuch"], 2, "nosuch")]
)
def test_the_package_is_the_command(arguments: list[str], code: int, said: str) -> None:
    command = [sys.executable, "-m", "laconic", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
