"""What some tests need from the machine, and what happens where it is absent.

A test marked `broker`, `data`, `torch`, `node`, `index`, `cc` or `ray` is skipped, with the reason, on a
machine without the thing. Where everything is known to be there, `LACONIC_REQUIRE=broker,data,torch,ray`
(and so on) turns such a skip into a failure, so that a suite which checks less than it should cannot pass.

Tests marked `soak` take long and run only when `-m` asks for them by that name (`scripts/soak`). Laws are
tried on fewer examples by default (profile `fast`) than in a soak (profile `soak`): tests/often.py.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

# The plain coder is what tests hold to the specification, and memory is measured without numba's in between;
# tests/compression/test_native.py holds the kernels against it. With LACONIC_NATIVE=1 all tests run on them.
os.environ.setdefault("LACONIC_NATIVE", "0")

# Several processes share the cores: threads of a matrix product that wait for each other only heat them.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

# In per cent of what each law says: tests/often.py.
settings.register_profile("fast", max_examples=30)
settings.register_profile("soak", max_examples=100)
settings.load_profile("fast")

# Debian keeps daemons out of an ordinary user's PATH.
DAEMON_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


def find_mosquitto() -> str | None:
    """The mosquitto broker's path, or None."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), *DAEMON_FOLDERS]))


def data_folder() -> Path:
    """Where the shared data should lie, whether it does or not; a relative path starts at the repository."""
    return REPOSITORY / (os.environ.get("LACONIC_DATA") or "../shared/data")


def _lacks_broker() -> str | None:
    return None if find_mosquitto() else "no mosquitto on the PATH (Debian: apt install mosquitto)"


def _lacks_data() -> str | None:
    folder = data_folder()
    return None if folder.is_dir() else f"no shared data at {folder} (set LACONIC_DATA)"


def _lacks_torch() -> str | None:
    found = importlib.util.find_spec("torch")
    return None if found else "no torch (LACONIC_TEST_TORCH=1 scripts/test installs it)"


def node_modules() -> Path:
    """Where onnxruntime-node should be installed, whether it is or not."""
    return Path(os.environ.get("LACONIC_NODE_MODULES") or REPOSITORY / ".node" / "node_modules")


def _lacks_node() -> str | None:
    if not shutil.which("node"):
        return "no node on the PATH (Debian: apt install nodejs)"
    found = (node_modules() / "onnxruntime-node").is_dir()
    return None if found else "no onnxruntime-node (npm install --prefix .node onnxruntime-node)"


def _lacks_index() -> str | None:
    asked = os.environ.get("LACONIC_TEST_INDEX") == "1"
    return None if asked else "the package index is not asked (LACONIC_TEST_INDEX=1 does)"


def _lacks_cc() -> str | None:
    return None if shutil.which("cc") else "no cc on the PATH (Debian: apt install gcc libc6-dev)"


def _lacks_ray() -> str | None:
    return None if importlib.util.find_spec("ray") else "no Ray (LACONIC_TEST_RAY=1 scripts/test installs it)"


NEEDS: Mapping[str, Callable[[], str | None]] = {
    "broker": _lacks_broker,
    "data": _lacks_data,
    "torch": _lacks_torch,
    "node": _lacks_node,
    "cc": _lacks_cc,
    "index": _lacks_index,
    "ray": _lacks_ray,
}


def required() -> frozenset[str]:
    """The needs that must be met on this machine, from `LACONIC_REQUIRE`."""
    names = frozenset(filter(None, os.environ.get("LACONIC_REQUIRE", "").replace(",", " ").split()))
    if unknown := names - NEEDS.keys():
        raise pytest.UsageError(
            f"LACONIC_REQUIRE names {', '.join(sorted(unknown))}; it may name {', '.join(NEEDS)}"
        )
    return names


def need(name: str) -> None:
    """Go on where the thing is there; else skip the test, or fail it where the thing is required."""
    if reason := NEEDS[name]():
        if name in required():
            pytest.fail(f"{reason}; LACONIC_REQUIRE says that it must be there", pytrace=False)
        pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a mistyped LACONIC_REQUIRE before any test runs."""
    required()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out, unless the marker expression speaks of them."""
    if "soak" in config.getoption("markexpr"):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Meet the markers' needs before any fixture is made."""
    for name in NEEDS:
        if item.get_closest_marker(name):
            need(name)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets that are not part of the project."""
    need("data")
    return data_folder()


@pytest.fixture(scope="session")
def mosquitto_path() -> str:
    """The mosquitto broker's path."""
    need("broker")
    return find_mosquitto() or ""


@pytest.fixture(scope="session")
def onnxruntime_node() -> Path:
    """The folder of node modules with onnxruntime-node in it."""
    need("node")
    return node_modules()
