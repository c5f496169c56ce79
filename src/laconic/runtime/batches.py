"""Checks data and settings against what a bundle takes, and cuts data into batches for inference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.errors import ConfigError
from laconic.runtime.manifest import DataInput, Manifest, Target

Array: TypeAlias = NDArray[Any]
Inputs: TypeAlias = Array | Mapping[str, Array]
"""One array for a model with one input, else arrays by input name; axis 0 counts samples."""

Targets: TypeAlias = Array | Mapping[str, Array] | None
"""One array for a bundle with one target, arrays by output or target name for several, None for none."""


def check_inputs(manifest: Manifest, x: Inputs, *, may_be_empty: bool = False) -> dict[str, Array]:
    """`x` by input name, every array of the right dtype and shape and the same number of samples, at least
    one unless it `may_be_empty`.

    Raises `ConfigError`.
    """
    if isinstance(x, Mapping):
        given = dict(x)
    elif len(manifest.inputs) == 1:
        given = {manifest.inputs[0].name: x}
    else:
        names = [i.name for i in manifest.inputs]
        raise ConfigError("the model has several inputs", value=names, remedy="give a mapping by name")
    if set(given) != {i.name for i in manifest.inputs}:
        raise ConfigError("names of the inputs", value=list(given), limit=[i.name for i in manifest.inputs])
    for signature in manifest.inputs:
        _check_array(signature, given[signature.name])
    counts = {len(a) for a in given.values()}
    if len(counts) > 1:
        raise ConfigError("numbers of samples differ between inputs", value=sorted(counts))
    if counts == {0} and not may_be_empty:
        raise ConfigError("the data set is empty", remedy="give at least one sample")
    return given


def check_targets(manifest: Manifest, y: Targets, samples: int) -> dict[str, Array]:
    """`y` by target name, as the graphs take it: class indices as int64 and in range, all else float32.

    Integers and truth values are taken for real numbers where those are due, and `(samples,)` for
    `(samples, 1)`. Raises `ConfigError`.
    """
    targets = {o.output: o.target for o in manifest.objectives if o.target is not None}
    if isinstance(y, Mapping):
        by_name = {t.name: output for output, t in targets.items()}
        given = {by_name.get(name, name): array for name, array in y.items()}
    elif y is None:
        given = {}
    elif len(targets) == 1:
        given = {next(iter(targets)): y}
    else:
        raise ConfigError("one array of targets", limit=sorted(targets), remedy="give a mapping by output")
    if given.keys() != targets.keys():
        raise ConfigError("targets", value=list(given), limit=sorted(targets))
    return {t.name: _checked_target(t, given[output], samples) for output, t in targets.items()}


def evaluation_batches(data: Mapping[str, Array], batch_size: int) -> Iterator[dict[str, Array]]:
    """Consecutive stretches of at most `batch_size` samples; views where the arrays allow it."""
    for start in range(0, samples_in(data), batch_size):
        yield {n: np.ascontiguousarray(a[start : start + batch_size]) for n, a in data.items()}


def samples_in(data: Mapping[str, Array]) -> int:
    """How many samples arrays have that have been checked."""
    return len(next(iter(data.values())))


def check_positive(thing: str, value: int) -> int:
    """`value` if it is an integer of at least 1; raises `ConfigError` otherwise."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ConfigError(thing, value=value, limit="an integer of at least 1")
    return int(value)


def check_seed(seed: int) -> int:
    """`seed` if it is an integer that is not negative; raises `ConfigError` otherwise."""
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise ConfigError("seed", value=seed, limit="an integer, not negative")
    return int(seed)


def check_rate(thing: str, value: float) -> float:
    """`value` if float32 can hold it and it is not negative; raises `ConfigError` otherwise."""
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = math.nan
    if not 0 <= rate <= float(np.finfo(np.float32).max):
        raise ConfigError(thing, value=value, limit="a finite float32, not negative")
    return rate


def _check_array(signature: DataInput, array: Array) -> None:
    thing = f"of input {signature.name!r}"
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"type {thing}", value=type(array).__name__, limit="numpy.ndarray")
    if array.dtype != np.dtype(signature.dtype):
        remedy = f"convert it with astype({signature.dtype!r})"
        raise ConfigError(f"dtype {thing}", value=str(array.dtype), limit=signature.dtype, remedy=remedy)
    if not _fits(array.shape[1:], signature.shape) or array.ndim == 0:
        raise ConfigError(f"shape {thing}", value=array.shape, limit=_due(signature.shape))


def _checked_target(target: Target, array: Array, samples: int) -> Array:
    thing = "of the targets" if target.name == "target" else f"of {target.name!r}"
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"type {thing}", value=type(array).__name__, limit="numpy.ndarray")
    if array.dtype.kind not in ("iu" if target.classes else "iufb"):
        limit = "an integer array" if target.classes else "an array of numbers"
        raise ConfigError(f"dtype {thing}", value=str(array.dtype), limit=limit)
    if array.shape == (samples,) and target.shape == (1,):
        array = array.reshape(samples, 1)
    if array.ndim == 0 or len(array) != samples or not _fits(array.shape[1:], target.shape):
        raise ConfigError(f"shape {thing}", value=array.shape, limit=(samples, *_due(target.shape)[1:]))
    if not target.classes:
        return array.astype(np.float32, copy=False)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= target.classes:
        found = low if low < 0 else high
        raise ConfigError("label out of range", value=found, limit=f"0 to {target.classes - 1}")
    return array.astype(np.int64, copy=False)


def _fits(found: tuple[int, ...], due: tuple[int | None, ...]) -> bool:
    return len(found) == len(due) and all(d in (None, f) for f, d in zip(found, due, strict=True))


def _due(shape: tuple[int | None, ...]) -> tuple[object, ...]:
    return ("samples", *("any" if d is None else d for d in shape))
