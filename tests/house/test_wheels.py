"""The base install comes from wheels alone on the machines it is for: nothing is compiled on a device."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MACHINES = {
    "Raspberry Pi OS, Debian 12": ("3.11", 36),
    "Raspberry Pi OS, Debian 13": ("3.13", 41),
    "Ubuntu 24.04": ("3.12", 39),
    "Ubuntu 26.04": ("3.14", 43),
}
"""Systems on 64-bit ARM: their Python, and the minor version of their glibc (2.x)."""


@pytest.mark.index
@pytest.mark.parametrize("system", MACHINES)
def test_every_package_of_the_base_install_has_a_wheel(system: str, tmp_path: Path) -> None:
    python, glibc = MACHINES[system]
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    # PEP 600: a wheel for an older glibc runs on a newer one; the first for ARM is of 2.17.
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, glibc + 1)]
    abis = [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    report = tmp_path / "report.json"
    found = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
            *("--only-binary=:all:", f"--target={tmp_path / 'nothing'}", f"--report={report}"),
            *("--implementation=cp", f"--python-version={python}", *abis, *platforms, *requirements),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, f"{system}: {found.stderr}"
    files = {
        i["metadata"]["name"]: i["download_info"]["url"] for i in json.loads(report.read_text())["install"]
    }
    assert {"numpy", "onnxruntime", "msgspec"} <= files.keys()
    assert all(url.endswith(".whl") for url in files.values()), files
