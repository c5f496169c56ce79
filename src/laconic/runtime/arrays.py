"""Reads labelled examples from a `.npz` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laconic.errors import ConfigError

_LIMIT_BYTES: Final = 2**31
"""Of all arrays, unpacked: a small archive may hold a very large one."""


def read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Inputs `x` and targets `y` of an `.npz` file; samples on axis 0 of both.

    Pickled objects are refused. Raises `ConfigError` when the file cannot be used.
    """
    found = named_arrays(path, "x", "y")
    if len(found) < 2:
        raise ConfigError(f"arrays in {path}", value=sorted(found), limit=".npz with arrays x and y")
    x, y = found["x"], found["y"]
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y):
        raise ConfigError(
            f"shapes of x and y in {path}", value=(x.shape, y.shape), limit="as many samples in both"
        )
    return x, y


def named_arrays(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that an `.npz` file has; pickled objects are refused.

    Raises `ConfigError` for what is no such file, is damaged, or has more than 2 GiB in it.
    """
    # A trainer has no use for them, and they take 9 ms and 1 MB to load.
    import zipfile
    import zlib
    from lzma import LZMAError
    from tokenize import TokenError

    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _LIMIT_BYTES:
            raise ConfigError(f"bytes in {path}", value=size, limit=_LIMIT_BYTES)
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in names if name in arrays}
    # A header may lie about a size, a member be encrypted or coded as nobody does.
    except (
        OSError,
        KeyError,
        ValueError,
        EOFError,
        MemoryError,
        RuntimeError,
        SyntaxError,
        TokenError,
        zipfile.BadZipFile,
        zlib.error,
        LZMAError,
    ) as e:
        raise ConfigError(f"cannot read examples from {path} ({e})", limit=".npz with arrays x and y") from e
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise ConfigError(f"{name} in {path}", value=type(array).__name__, limit="an array of numpy")
    return found
