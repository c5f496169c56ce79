"""Laws of tests/conftest.py: what a machine lacks is said, and never hidden where it must be there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"

SUITE = """
import pytest

@pytest.mark.data
def test_marked(): pass

def test_fixture(shared_data): assert shared_data.is_dir()

@pytest.mark.torch
def test_torch(): pass

@pytest.mark.soak
def test_long(): pass

def test_plain(): pass
"""

INI = "[pytest]\nmarkers =\n  broker: b\n  data: d\n  torch: t\n  soak: s\n"


class Suite:
    """A small suite with the project's conftest.py, on a machine without PyTorch."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "repository"
        tests = self.root / "tests"
        tests.mkdir(parents=True)
        shutil.copy(CONFTEST, tests)
        (tests / "test_suite.py").write_text(SUITE)
        (self.root / "pytest.ini").write_text(INI)
        (self.root / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")

    def run(self, *arguments: str, **env: str) -> tuple[int, dict[str, int], str]:
        """pytest's exit status, its counts by outcome, and all it printed."""
        # Of the plug-ins that happen to be installed none is looked at: half of a run's time went there.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LACONIC_", "PYTEST_", "COV_"))}
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *arguments],
            check=False,
            cwd=self.root,
            env={**clean, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(self.root), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        lines = result.stdout.strip().splitlines()
        counts = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", lines[-1].split(" in ")[0])}
        return result.returncode, counts, result.stdout


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path)


def test_a_lack_is_a_skip_with_its_reason(suite: Suite) -> None:
    status, counts, text = suite.run(LACONIC_DATA="nowhere/at/all")
    assert status == 0
    assert counts == {"passed": 1, "skipped": 3, "deselected": 1}
    assert f"no shared data at {suite.root / 'nowhere/at/all'}" in text.replace("\n", "")
    assert "no torch" in text


def test_a_lack_is_a_failure_where_the_thing_is_required(suite: Suite) -> None:
    status, counts, text = suite.run(LACONIC_DATA="nowhere", LACONIC_REQUIRE="data")
    assert status == 1
    assert counts.get("skipped") == 1, "PyTorch was not required"
    assert counts.get("passed") == 1
    assert counts.get("failed", 0) + counts.get("errors", counts.get("error", 0)) == 2
    assert "LACONIC_REQUIRE" in text


def test_what_is_there_is_used(suite: Suite) -> None:
    (suite.root.parent / "shared" / "data").mkdir(parents=True)
    status, counts, _ = suite.run(LACONIC_REQUIRE="data")
    assert (status, counts) == (0, {"passed": 3, "skipped": 1, "deselected": 1})


def test_a_mistyped_requirement_stops_everything(suite: Suite) -> None:
    result = suite.run(LACONIC_REQUIRE="data,borker")
    assert result[0] == pytest.ExitCode.USAGE_ERROR
    assert "borker" in result[2]


@pytest.mark.parametrize(
    ("expression", "passed"),
    [("soak", 1), ("not broker", 1), ("not soak", 1), ("", 1), ("soak or not torch", 2)],
)
def test_long_tests_run_only_when_asked_for_by_name(suite: Suite, expression: str, passed: int) -> None:
    status, counts, _ = suite.run("-m", expression, LACONIC_DATA="nowhere")
    assert (status, counts.get("passed")) == (0, passed)
