"""Checks data against a bundle's signature and cuts it into batches of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.errors import ConfigError
from laconic.runtime.manifest import DataInput, Manifest

Array: TypeAlias = NDArray[Any]
Inputs: TypeAlias = Array | Mapping[str, Array]
"""One array for a model with one input, else arrays by input name; axis 0 counts samples."""


CHUNK_STEPS = 64
"""Steps in a chunk at most, however small the data: between chunks, training can be stopped."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A few training steps: arrays by graph input, shape `(steps, batch, ...)`.

    The arrays are buffers that the next chunk overwrites.
    """

    feeds: Mapping[str, Array]
    steps: int


def check_inputs(manifest: Manifest, x: Inputs) -> dict[str, Array]:
    """`x` by input name, every array of the right dtype and shape and the same number of samples.

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
        raise ConfigError("names of the inputs", value=sorted(given), limit=[i.name for i in manifest.inputs])
    for signature in manifest.inputs:
        _check_array(signature, given[signature.name])
    counts = {len(a) for a in given.values()}
    if len(counts) > 1:
        raise ConfigError("numbers of samples differ between inputs", value=sorted(counts))
    if counts == {0}:
        raise ConfigError("the data set is empty", remedy="give at least one sample")
    return given


def check_labels(manifest: Manifest, y: Array, samples: int) -> NDArray[np.int64]:
    """Labels as int64, one for each sample and each below the number of classes.

    Raises `ConfigError`.
    """
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "iu":
        found = y.dtype if isinstance(y, np.ndarray) else type(y).__name__
        raise ConfigError("dtype of the labels", value=str(found), limit="an integer array")
    if y.shape != (samples,):
        raise ConfigError("shape of the labels", value=y.shape, limit=(samples,))
    classes = manifest.loss.classes
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        found_label = low if low < 0 else high
        raise ConfigError("label out of range", value=found_label, limit=f"0 to {classes - 1}")
    return y.astype(np.int64, copy=False)


def training_chunks(
    data: Mapping[str, Array], order: NDArray[np.int64], batch_size: int, chunk_bytes: int
) -> Iterator[Chunk]:
    """Batches of `order`, gathered a few steps at a time into buffers of about `chunk_bytes`.

    `data` holds every data input and `labels`. The last batch is filled up with zeros and marked in `mask`.
    """
    samples = len(order)
    steps = -(-samples // batch_size)
    step_bytes = batch_size * sum(_sample_bytes(a) for a in data.values())
    length = max(1, min(steps, CHUNK_STEPS, chunk_bytes // max(1, step_bytes)))
    buffers = {n: np.empty((length * batch_size, *a.shape[1:]), a.dtype) for n, a in data.items()}
    mask = np.ones(length * batch_size, np.float32)
    for first in range(0, steps, length):
        here = min(length, steps - first)
        picked = order[first * batch_size : (first + here) * batch_size]
        real = len(picked)
        feeds: dict[str, Array] = {}
        for name, source in data.items():
            buffer = buffers[name]
            np.take(source, picked, axis=0, out=buffer[:real], mode="clip")
            buffer[real : here * batch_size] = 0
            feeds[name] = _in_steps(buffer, here, batch_size)
        mask[real : here * batch_size] = 0
        feeds["mask"] = _in_steps(mask, here, batch_size)
        yield Chunk(feeds, here)


def evaluation_batches(data: Mapping[str, Array], batch_size: int) -> Iterator[dict[str, Array]]:
    """Consecutive stretches of at most `batch_size` samples; views where the arrays allow it."""
    samples = len(next(iter(data.values())))
    for start in range(0, samples, batch_size):
        yield {n: np.ascontiguousarray(a[start : start + batch_size]) for n, a in data.items()}


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
    if not 0 <= value <= float(np.finfo(np.float32).max):
        raise ConfigError(thing, value=value, limit="a finite float32, not negative")
    return float(value)


def _check_array(signature: DataInput, array: Array) -> None:
    thing = f"of input {signature.name!r}"
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"type {thing}", value=type(array).__name__, limit="numpy.ndarray")
    if array.dtype != np.dtype(signature.dtype):
        remedy = f"convert it with astype({signature.dtype!r})"
        raise ConfigError(f"dtype {thing}", value=str(array.dtype), limit=signature.dtype, remedy=remedy)
    if array.ndim == 0 or array.shape[1:] != signature.shape:
        due: Sequence[object] = ("samples", *signature.shape)
        raise ConfigError(f"shape {thing}", value=array.shape, limit=tuple(due))


def _sample_bytes(array: Array) -> int:
    return math.prod(array.shape[1:]) * array.dtype.itemsize


def _in_steps(buffer: Array, steps: int, batch_size: int) -> Array:
    return buffer[: steps * batch_size].reshape(steps, batch_size, *buffer.shape[1:])
