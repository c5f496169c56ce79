"""When the compiled kernels are loaded, and what happens where they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import logging, sys
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
import numpy as np
import laconic
from laconic.compression import PRESETS, adaptive, encode, native
assert "numba" not in sys.modules
stream = np.arange(5000, dtype=np.uint8) % 7
seen = []
for _ in range(int(sys.argv[1])):
    body = adaptive.encode(stream, None, alphabet=7)
    assert (adaptive.decode(body, None, 5000, alphabet=7) == stream).all()
    seen.append("laconic.compression.native.kernels" in sys.modules)
print("".join("01"[s] for s in seen), "numba" in sys.modules)
"""


def run(turns: int, **environment: str) -> str:
    """What a process of its own prints, that codes so many streams of 5,000 symbols."""
    own = {k: v for k, v in os.environ.items() if k not in ("LACONIC_NATIVE", "NUMBA_DISABLE_JIT")}
    made = subprocess.run(
        [sys.executable, "-c", CODE, str(turns)],
        env=own | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return made.stdout


def test_kernels_are_not_loaded_before_that_pays():
    assert run(3) == "000 False\n"


def test_kernels_are_loaded_once_much_was_coded():
    loaded = run(80).split()[0]
    assert loaded == "".join(sorted(loaded))
    assert 10 < loaded.count("0") < 80


def test_kernels_are_loaded_at_once_on_demand():
    assert run(2, LACONIC_NATIVE="1") == "11 True\n"


def test_kernels_are_never_loaded_where_they_are_switched_off():
    assert run(80, LACONIC_NATIVE="0") == "0" * 80 + " False\n"


@pytest.mark.parametrize("turns", [1, 4])
def test_one_warning_says_that_kernels_cannot_be_used_and_coding_goes_on(turns):
    first, last = run(turns, LACONIC_NATIVE="1", NUMBA_DISABLE_JIT="1").splitlines()
    assert first.startswith("WARNING numba is installed but cannot be used")
    assert "NUMBA_DISABLE_JIT" in first
    assert last == "0" * turns + " True"


def test_kernels_can_be_compiled_ahead_into_a_folder_of_choice(tmp_path):
    made = subprocess.run(
        [sys.executable, "-m", "laconic.compression.native"],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert str(tmp_path) in made.stdout
    assert len(list(tmp_path.rglob("*.nbi"))) == 11
