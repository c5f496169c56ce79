"""Laws of scripts/: one environment, made once, complete or made again, and a way out in every message.

The scripts run for real, in a copy of the repository, with a Python that only pretends: it writes down what
it was asked, so that nothing is downloaded and every failure can be had on demand.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(p for p in (REPOSITORY / "scripts").iterdir() if p.is_file())
ENVIRONMENT = REPOSITORY / "scripts" / "lib" / "environment.sh"

# What spreads tests over processes; after it come the caller's own arguments, which win.
IN_PARALLEL = "-n logical --maxprocesses=4 --dist=worksteal"

# Everything a script may count on besides Python; `flock` is given or withheld by the test.
TOOLS = "basename cat chmod cp dirname grep ln ls mkdir mv readlink rm rmdir sed sh sleep tail touch"

PRETENDER = r"""#!/bin/sh
printf '%s\n' "$*" >>"$ASKED"
case "$*" in
*sys.version_info*) cat "$0.version" ;;
*"import ensurepip"*) exit "${NO_VENV:-0}" ;;
*"-m venv"*)
    for folder; do :; done
    rm -rf "$folder"/* && mkdir -p "$folder/bin" && touch "$folder/pyvenv.cfg"
    cp "$0" "$folder/bin/python" && cp "$0.version" "$folder/bin/python.version"
    printf '#!/bin/sh\necho "$$" "$@"\n' >"$folder/bin/laconic"
    chmod +x "$folder/bin/laconic" ;;
*"-m pip install"*)
    mkdir "$ASKED.busy" || echo "two installations at once" >>"$ASKED"
    echo "pip said this"
    sleep "${PIP_TAKES:-0}"
    rmdir "$ASKED.busy"
    exit "${PIP_ENDS:-0}" ;;
*"-m pytest"*) echo "1 passed" ;;
esac
"""


@dataclass
class House:
    """A copy of the scripts in a folder of its own, with the machine around it."""

    root: Path
    tools: Path
    asked: Path
    env: dict[str, str] = field(default_factory=dict)

    def python(self, name: str, version: str) -> Path:
        """Put a pretending interpreter on the PATH."""
        path = self.tools / name
        path.write_text(PRETENDER)
        path.chmod(0o755)
        path.with_name(f"{name}.version").write_text(f"{version}\n")
        return path

    def start(self, script: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "scripts" / script, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.root.parent,
            env={"PATH": str(self.tools), "ASKED": str(self.asked), **self.env, **env},
        )

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments, **env)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def count(self, what: str) -> int:
        """How often a Python was asked for something that contains `what`."""
        return self.asked.read_text().count(what) if self.asked.exists() else 0

    @property
    def venv(self) -> Path:
        return self.root / ".venv"


@pytest.fixture(params=["flock", "no flock"])
def house(tmp_path: Path, request: pytest.FixtureRequest) -> House:
    root, tools = tmp_path / "a house", tmp_path / "tools"
    root.mkdir()
    tools.mkdir()
    shutil.copytree(REPOSITORY / "scripts", root / "scripts")
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    names = [*TOOLS.split(), *(["flock"] if request.param == "flock" else [])]
    for name in names:
        path = shutil.which(name)
        assert path, f"this machine has no {name}"
        (tools / name).symlink_to(path)
    house = House(root, tools, tmp_path / "asked")
    house.python("python3", "3.11.9")
    return house


# --- the files ---------------------------------------------------------------------------------------------


def test_there_are_scripts() -> None:
    assert {"demo", "test", "check", "bench", "soak"} <= {p.name for p in SCRIPTS}


@pytest.mark.parametrize("script", [*SCRIPTS, REPOSITORY / ".ci" / "run"], ids=lambda p: p.name)
def test_a_script_can_be_run_and_parsed(script: Path) -> None:
    assert os.access(script, os.X_OK)
    shell = re.fullmatch(r"#!(?:/bin/|/usr/bin/env )(sh|bash)", script.read_text().splitlines()[0])
    assert shell, "a script says which shell it is for"
    subprocess.run([shell[1], "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_a_script_uses_the_shared_environment(script: Path) -> None:
    text = script.read_text()
    assert '. "$(dirname -- "$0")/lib/environment.sh"' in text
    assert re.search(r"^environment \w+$", text, re.MULTILINE)


def test_the_scripts_and_the_package_agree_on_the_pythons() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    promised = [int(m[1]) for c in project["classifiers"] if (m := re.search(r":: 3\.(\d+)$", c))]
    limits = dict(re.findall(r"^(oldest|newest)_minor=(\d+)$", ENVIRONMENT.read_text(), re.MULTILINE))
    assert (int(limits["oldest"]), int(limits["newest"])) == (min(promised), max(promised))
    assert project["requires-python"].startswith(f">=3.{limits['oldest']}")


def test_every_extra_that_a_script_asks_for_exists() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for script in SCRIPTS:
        for extra in re.findall(r"^environment (\w+)$", script.read_text(), re.MULTILINE):
            assert extra in project["optional-dependencies"], script.name


# --- made once ---------------------------------------------------------------------------------------------


def test_the_first_run_makes_the_environment_and_the_second_reuses_it(house: House) -> None:
    first = house.run("test")
    assert first.returncode == 0, first.stderr
    assert (house.count("-m venv"), house.count("-m pip install")) == (1, 1)
    assert house.count(f"-e {house.root}[dev]") == 1

    asked_before = house.asked.read_text()
    second = house.run("test", "-k", "a b")
    assert second.returncode == 0
    assert second.stderr == ""
    assert house.asked.read_text() == f"{asked_before}-m pytest {IN_PARALLEL} -k a b\n"


def test_nothing_but_the_program_writes_to_standard_output(house: House) -> None:
    first = house.run("demo", "--json", "two words")
    assert re.fullmatch(r"\d+ demo --json two words\n", first.stdout)
    assert "virtual environment" in first.stderr
    assert "installing laconic[demo]" in first.stderr


def test_the_program_takes_the_place_of_the_script_so_that_signals_reach_it(house: House) -> None:
    process = house.start("demo")
    out, _ = process.communicate(timeout=30)
    assert int(out.split()[0]) == process.pid


def test_a_changed_pyproject_is_installed_again(house: House) -> None:
    house.run("test")
    with (house.root / "pyproject.toml").open("a") as f:
        f.write("# changed\n")
    assert house.run("test").returncode == 0
    assert (house.count("-m venv"), house.count("-m pip install")) == (1, 2)


def test_the_tests_environment_is_added_to_the_demos_and_serves_it(house: House) -> None:
    house.run("demo")
    house.run("test")
    assert (house.count("-m venv"), house.count("-m pip install")) == (1, 2)
    (house.venv / "demo.stamp").unlink()
    assert house.run("demo").returncode == 0
    assert house.count("-m pip install") == 2


def test_torch_is_installed_only_when_asked_for(house: House) -> None:
    house.run("test")
    assert house.count("torch==") == 0
    assert house.run("test", LACONIC_TEST_TORCH="1").returncode == 0
    assert house.count("torch==") == 1
    house.run("test", LACONIC_TEST_TORCH="1")
    assert house.count("torch==") == 1


def test_a_repository_that_moved_gets_a_new_environment(house: House) -> None:
    house.run("test")
    moved = house.root.rename(house.root.with_name("elsewhere"))
    house.root = moved
    result = house.run("test")
    assert result.returncode == 0
    assert "moved" in result.stderr
    assert house.count("-m venv") == 2


def test_PYTHON_chooses_the_interpreter_and_another_choice_makes_the_environment_again(house: House) -> None:
    house.python("python3.13", "3.13.2")
    house.run("test", PYTHON="python3.13")
    assert (house.venv / "bin" / "python.version").read_text() == "3.13.2\n"
    house.run("test")
    assert house.count("-m venv") == 1, "without PYTHON, what is there will do"
    house.run("test", PYTHON="python3")
    assert (house.venv / "bin" / "python.version").read_text() == "3.11.9\n"


def test_LACONIC_VENV_puts_the_environment_elsewhere(house: House, tmp_path: Path) -> None:
    assert house.run("test", LACONIC_VENV=str(tmp_path / "x" / "env")).returncode == 0
    assert (tmp_path / "x" / "env" / "dev.stamp").exists()
    assert not house.venv.exists()


def test_the_first_python_that_fits_is_used(house: House) -> None:
    house.python("python3", "3.9.18")
    house.python("python3.14", "3.15.0")
    house.python("python3.12", "3.12.1")
    assert house.run("test").returncode == 0
    assert (house.venv / "bin" / "python.version").read_text() == "3.12.1\n"


# --- what can go wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.7.18", "3.9.18", "3.10.13", "3.15.0", "4.0.0"])
def test_a_python_out_of_range_is_refused_by_name(house: House, version: str) -> None:
    other = house.python("other", version)
    result = house.run("demo", PYTHON=str(other))
    assert result.returncode == 1
    assert result.stdout == ""
    assert f"{other} is {version}" in result.stderr
    assert "3.11 to 3.14" in result.stderr
    assert "PYTHON=" in result.stderr
    assert house.count("-m venv") == 0


def test_no_python_at_all(house: House) -> None:
    (house.tools / "python3").unlink()
    result = house.run("demo")
    assert result.returncode == 1
    assert "none was found" in result.stderr
    assert "apt install python3" in result.stderr


def test_a_python_without_venv_says_which_package_brings_it(house: House) -> None:
    result = house.run("demo", NO_VENV="1")
    assert result.returncode == 1
    assert "python3 (Python 3.11.9)" in result.stderr
    assert "apt install python3-venv" in result.stderr
    assert "python3.11-venv" in result.stderr
    assert house.count("-m venv") == 0


def test_a_failed_installation_shows_pips_last_words_and_is_tried_again(house: House) -> None:
    failed = house.run("demo", PIP_ENDS="1")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "| pip said this" in failed.stderr
    assert "What to do:" in failed.stderr

    assert house.run("demo").returncode == 0
    assert (house.count("-m venv"), house.count("-m pip install")) == (1, 2)


def test_what_was_installed_before_survives_a_failed_installation(house: House) -> None:
    house.run("demo")
    assert house.run("test", PIP_ENDS="1").returncode == 1
    before = house.asked.read_text()
    assert house.run("demo").returncode == 0
    assert house.asked.read_text() == before


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_installation_starts_again_from_nothing(house: House, how: signal.Signals) -> None:
    process = house.start("test", PIP_TAKES="1")
    while not (house.asked.with_name("asked.busy")).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (128 + how, -how)
    assert how is signal.SIGKILL or "interrupted" in err
    shutil.rmtree(house.asked.with_name("asked.busy"), ignore_errors=True)

    again = house.run("test")
    assert again.returncode == 0, again.stderr
    assert "interrupted" in again.stderr
    assert (house.count("-m venv"), house.count("-m pip install")) == (2, 2)


def test_runs_at_the_same_time_install_once(house: House) -> None:
    runs = [house.start("test", PIP_TAKES="0.5") for _ in range(4)]
    ends = [(p.communicate(timeout=30), p.returncode) for p in runs]
    assert [code for _, code in ends] == [0, 0, 0, 0], ends
    assert (house.count("-m venv"), house.count("-m pip install")) == (1, 1)
    assert house.count("two installations at once") == 0
    assert not house.venv.with_name(".venv.lock").exists()


def test_the_lock_of_a_run_that_died_is_cleared_away(house: House) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    lock = house.venv.with_name(".venv.lock")
    lock.mkdir()
    (lock / "owner").symlink_to(str(gone.pid))
    assert house.run("test").returncode == 0
    assert (house.count("-m venv"), house.count("-m pip install")) == (1, 1)


def test_a_place_that_cannot_be_written_is_named_with_a_way_out(house: House) -> None:
    (house.root / "file").touch()
    result = house.run("demo", LACONIC_VENV=str(house.root / "file" / "venv"))
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "LACONIC_VENV=" in result.stderr


def test_a_folder_that_is_no_environment_is_left_alone(house: House, tmp_path: Path) -> None:
    mine = tmp_path / "thesis" / "chapter"
    mine.parent.mkdir()
    mine.write_text("words")
    result = house.run("test", LACONIC_VENV=str(mine.parent))
    assert result.returncode == 1
    assert "not a virtual environment" in result.stderr
    assert mine.read_text() == "words"
    assert house.count("-m venv") == 0


# --- each script's own -------------------------------------------------------------------------------------


def test_soak_runs_the_long_tests_and_laws_at_their_full_counts(house: House) -> None:
    house.run("soak", "-x")
    asked = f"-m pytest {IN_PARALLEL} --hypothesis-profile=soak -m soak or thinned or hypothesis -x"
    assert house.count(asked) == 1


@pytest.mark.parametrize("name", ["", "unknown", "../scripts/demo", "speed.py", "--help"])
def test_bench_lists_what_exists_before_it_makes_anything(house: House, name: str) -> None:
    (house.root / "benchmarks").mkdir()
    (house.root / "benchmarks" / "speed.py").write_text('"""How fast."""\n')
    result = house.run("bench", *name.split())
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.search(r"^  speed +How fast\.$", result.stderr, re.MULTILINE)
    assert not house.venv.exists()


def test_bench_runs_the_one_that_is_named(house: House) -> None:
    (house.root / "benchmarks").mkdir()
    (house.root / "benchmarks" / "speed.py").write_text('"""How fast."""\n')
    assert house.run("bench", "speed", "--rounds", "3").returncode == 0
    assert house.count(f"{house.root}/benchmarks/speed.py --rounds 3\n") == 1


def test_check_runs_every_tool_and_fails_if_one_does(house: House) -> None:
    house.run("test")
    linter = house.venv / "bin" / "lint-imports"
    linter.write_text("#!/bin/sh\necho 'a contract is broken'\nexit 1\n")
    linter.chmod(0o755)
    result = house.run("check")
    assert result.returncode == 1
    assert re.findall(r"^(\w+) +(?:ruff|mypy|import)", result.stdout, re.MULTILINE) == [
        "ok",
        "ok",
        "ok",
        "FAILED",
    ]
    assert "a contract is broken" in result.stdout
    linter.write_text("#!/bin/sh\n")
    assert house.run("check").returncode == 0
