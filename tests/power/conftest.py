"""The disk that can lose power lies with the benchmark that it was made for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _sdk.disk import PowerDisk

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def disk(tmp_path: Path) -> PowerDisk:
    """An empty folder on a disk that can lose power."""
    from _sdk.disk import PowerDisk

    folder = tmp_path / "disk"
    folder.mkdir()
    return PowerDisk(folder, tmp_path / "power.log")


@pytest.fixture
def program(disk: PowerDisk) -> Run:
    """Starts a Python program in the disk's folder."""

    def run(text: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", text],
            cwd=disk.folder,
            env={**os.environ, **disk.environment},
            stdout=subprocess.PIPE,
            text=True,
        )

    return run
