"""Anybody's examples: an `.npz` file with `x`, `y` and, if they are of persons or engines, `group`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.device_sim.datasets.labelled import Dataset, Labelled
from laconic.errors import ConfigError
from laconic.runtime.arrays import named_arrays, read_arrays


def load(path: Path) -> Dataset:
    """The examples of a file: `x`, `y`, and `group`, integers `(samples,)`, if there is one.

    Labels of a real dtype mean regression, and are read as float32. Examples of a group below 0 are nobody's:
    if there are any, they are what the file holds out. Raises `ConfigError`, for NaN and infinity, too.
    """
    x, y = numbers(path)
    if np.issubdtype(y.dtype, np.floating):
        with np.errstate(over="ignore"):
            y = y.astype(np.float32, copy=False)
    for name, array in (("x", x), ("y", y)):
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise ConfigError(f"{name} in {path}", value="NaN or infinity", limit="finite float32")
    every = Labelled(x, y, group := _group(path, len(y)))
    if group is None or (group >= 0).all():
        return Dataset(every)
    known = group >= 0
    return Dataset(Labelled(x[known], y[known], group[known]), every.gathered(np.flatnonzero(~known)))


def numbers(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """`x` and `y` of a file, as `read_arrays`. Raises `ConfigError` as it does, and for words as labels."""
    x, y = read_arrays(path)
    for name, array, limit in (
        ("x", x, "numbers"),
        ("y", y, "whole numbers from 0 (classes) or real numbers (regression)"),
    ):
        if array.dtype.kind not in "biuf":
            raise ConfigError(f"dtype of {name} in {path}", value=array.dtype.str, limit=limit)
    return x, y


def _group(path: Path, samples: int) -> NDArray[np.int64] | None:
    group = named_arrays(path, "group").get("group")
    if group is None:
        return None
    if group.shape != (samples,) or not np.issubdtype(group.dtype, np.integer):
        raise ConfigError(
            f"group in {path}", value=(group.shape, group.dtype.str), limit=f"{samples} integers"
        )
    return group.astype(np.int64, copy=False)
