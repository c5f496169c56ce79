"""Reads labelled examples from a `.npz` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.errors import ConfigError


def read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Inputs `x` and targets `y` of an `.npz` file; samples on axis 0 of both.

    Pickled objects are refused. Raises `ConfigError` when the file cannot be used.
    """
    # A trainer has no use for it, and it takes 9 ms and 1 MB to load.
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise ConfigError(f"cannot read examples from {path} ({e})", limit=".npz with arrays x and y") from e
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y):
        raise ConfigError(
            f"shapes of x and y in {path}", value=(x.shape, y.shape), limit="as many samples in both"
        )
    return x, y
