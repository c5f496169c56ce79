"""Environments of the benchmarks' peers, apart from the project's own: made once, kept in a cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laconic-bench"

INSTALLER = frozenset({"pip", "setuptools", "_distutils_hack", "pkg_resources", "distutils-precedence.pth"})
"""What a virtual environment brings along by itself."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment; `trouble` says why it could not be made."""

    folder: Path
    trouble: str = ""

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return next((self.folder / "lib").glob("python3*/site-packages"))


def environment(name: str, *requirements: str) -> Environment:
    """The environment of that name, made or remade when it does not hold what is wanted."""
    made = Environment(CACHE / f"{name}-{sys.version_info.major}.{sys.version_info.minor}")
    stamp = made.folder / "requirements"
    wanted = "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        _say(f"making {made.folder} (once)")
        venv.create(made.folder, clear=True, with_pip=True)
        if trouble := _install(made, *requirements):
            return Environment(made.folder, trouble)
        stamp.write_text(wanted)
    return made


def base_install() -> Environment:
    """An environment with nothing but this project as it stands, installed as a device would."""
    made = Environment(CACHE / f"base-{sys.version_info.major}.{sys.version_info.minor}")
    _say(f"installing the project into {made.folder}")
    venv.create(made.folder, clear=True, with_pip=True)
    trouble = _install(made, str(ROOT))
    return Environment(made.folder, trouble)


def megabytes(made: Environment, *, bytecode: bool = True) -> dict[str, float]:
    """Size of an environment's packages without its installer, in MB, by what lies in site-packages.

    Without `bytecode`, what a wheel holds: Python makes the rest from it, when it is installed or first run.
    """
    sizes: dict[str, float] = {}
    for entry in made.packages.iterdir():
        name = entry.name.split("-")[0]
        if name in INSTALLER or entry.name == "__pycache__":
            continue
        files = [entry] if entry.is_file() else [f for f in entry.rglob("*") if f.is_file()]
        files = [f for f in files if bytecode or f.suffix != ".pyc"]
        sizes[name] = sizes.get(name, 0.0) + sum(f.stat().st_size for f in files) / 1e6
    return sizes


def _install(made: Environment, *requirements: str) -> str:
    """Run pip; its last words if it fails."""
    command = [made.python, "-I", "-m", "pip", "install", "--no-input", "--quiet", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr)
