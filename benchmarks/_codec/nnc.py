"""MPEG's Neural Network Coding (ISO/IEC 15938-17) as a contender: `nncodec` 2.1.3, built from source."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from _environments import Environment, environment

NNCODEC = "nncodec==2.1.3"
# All that its coder imports. PyTorch, torchvision, OpenCV and the rest of its requirements serve other parts.
NEEDED = ("numpy<2", "h5py")
WORKER = Path(__file__).with_name("nnc_worker.py")

Arrays: TypeAlias = Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]


@dataclass(frozen=True)
class Setting:
    """A quantiser: a step is `(4 + qp % 4) * 2 ** (qp // 4 - 2)`, so 4 more double it.

    `nonweight_qp` is for tensors with one dimension (nncodec's default is -75, next to lossless); `dq` is
    trellis-coded quantisation, nncodec's default, whose step counts double.
    """

    qp: int
    nonweight_qp: int = -75
    dq: bool = True


SWEEP = tuple(Setting(qp, qp, dq) for qp in range(-64, 5) for dq in (True, False))
"""Steps from 2 ** -16 to 2 for all tensors alike, by both quantisers: 4 s for 200,000 values."""


@dataclass(frozen=True)
class Coded:
    """What a setting made of an update; seconds are the processor's."""

    setting: Setting
    bytes: int
    relative_error: float
    encode_s: float
    decode_s: float


def nnc_environment() -> Environment:
    """The coder's own environment; needs a C++ compiler the first time. `trouble` says what went wrong."""
    made = environment("nncodec", *NEEDED)
    if made.trouble or _run(made, "-c", "import nncodec.nnc_core").returncode == 0:
        return made
    # Built here: there is no wheel. Without its requirements, which are 2 GB.
    done = _run(made, "-I", "-m", "pip", "install", "--no-input", "--quiet", "--no-deps", NNCODEC)
    words = done.stderr.strip().splitlines()
    return Environment(made.folder, words[-1] if done.returncode and words else "")


def coded(home: Environment, update: Arrays, settings: Sequence[Setting]) -> list[Coded]:
    """Each setting's size, error and time, in the order given.

    `update`: float32 arrays by name. Raises `RuntimeError` with the worker's last words if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "update.npz"
        arrays: dict[str, Any] = dict(update)
        np.savez(path, **arrays)
        command = [str(WORKER), str(path), json.dumps([asdict(s) for s in settings])]
        done = _run(home, *command)
    if done.returncode:
        raise RuntimeError(f"nncodec: {done.stderr.strip()[-300:]}")
    return [_coded(told) for told in json.loads(done.stdout.splitlines()[-1])]


def smallest(results: Sequence[Coded], relative_error: float) -> Coded:
    """The result with the fewest bytes whose error is at most `relative_error`.

    Raises `RuntimeError` if there is none.
    """
    fine = [c for c in results if c.relative_error <= relative_error]
    if not fine:
        raise RuntimeError(f"nncodec: no step has an error of at most {relative_error}")
    return min(fine, key=lambda c: c.bytes)


def _coded(told: dict[str, Any]) -> Coded:
    setting = Setting(told.pop("qp"), told.pop("nonweight_qp"), told.pop("dq"))
    return Coded(setting, **told)


def _run(home: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [home.python, *arguments]
    return subprocess.run(command, env=_environ(), capture_output=True, text=True, check=False)


def _environ() -> dict[str, str]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "VIRTUAL_ENV")} | one
