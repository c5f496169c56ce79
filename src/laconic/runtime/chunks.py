"""Cuts training data into chunks of a few steps, in buffers of bounded memory.

A step's data lie at an address that depends, modulo `ALIGNMENT_BYTES`, on the number of the step and not on
how a run is cut into chunks: so the cuts do not change what is computed (`laconic.runtime.memory`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.batches import Array, samples_in
from laconic.runtime.memory import ALIGNMENT_BYTES, Room
from laconic.runtime.pace import CHUNK_STEPS, Pace


@dataclass(frozen=True, slots=True)
class Chunk:
    """A few training steps: arrays by graph input, shape `(steps, batch, ...)`.

    The arrays are buffers that the next chunk may overwrite.
    """

    feeds: Mapping[str, Array]
    steps: int
    batch: int


def training_chunks(
    data: Mapping[str, Array],
    orders: Iterable[NDArray[np.int64]],
    batch_size: int,
    chunk_bytes: int,
    pace: Pace,
    *,
    done: int = 0,
) -> Iterator[Chunk]:
    """Batches of each epoch's order, gathered a few steps at a time into buffers of about `chunk_bytes`.

    `data` holds every data input and target. What is left at the end of an epoch is a batch of its own, as
    large as it is. The first `done` steps of all are passed over.
    """
    length = min(_steps_in(data, batch_size, chunk_bytes), max(1, samples_in(data) // batch_size))
    rooms = {n: Room(length * batch_size * _sample_bytes(a)) for n, a in data.items()}
    before = 0
    for order in orders:
        steps = -(-len(order) // batch_size)
        whole = len(order) // batch_size
        step = max(0, done - before)
        while step < steps:
            count = min(length, pace.steps, whole - step) if step < whole else 1
            picked = order[step * batch_size : (step + count) * batch_size]
            batch = len(picked) // count
            gathered = {}
            for name, source in data.items():
                shape = (count, batch, *source.shape[1:])
                phase = _phase(before + step, batch * _sample_bytes(source))
                out = rooms[name].at(phase, shape, source.dtype)
                np.take(source, picked, axis=0, out=out.reshape(len(picked), *shape[2:]), mode="clip")
                gathered[name] = out
            yield Chunk(gathered, count, batch)
            step += count
        before += steps


def stream_chunks(
    groups: Iterable[Mapping[str, Array]], batch_size: int, chunk_bytes: int, pace: Pace
) -> Iterator[Chunk]:
    """The same from groups of samples of any size, in the order in which they come; no more than one group
    and one batch is held at a time.

    Samples of different shapes do not share a batch: where an axis of free length changes, the batch so far
    stays smaller.
    """
    waiting: dict[str, Array] = {}
    step = 0
    for group in groups:
        if waiting and any(waiting[n].shape[1:] != a.shape[1:] for n, a in group.items()):
            yield _placed(waiting, step, 1, samples_in(waiting))
            step += 1
            waiting = {}
        start = 0
        if waiting:
            start = batch_size - samples_in(waiting)
            waiting = {n: np.concatenate([waiting[n], a[:start]]) for n, a in group.items()}
            if samples_in(waiting) < batch_size:
                del group
                continue
            yield _placed(waiting, step, 1, batch_size)
            step += 1
        length = _steps_in(group, batch_size, chunk_bytes)
        while count := min(length, pace.steps, (samples_in(group) - start) // batch_size):
            stop = start + count * batch_size
            yield _placed({n: a[start:stop] for n, a in group.items()}, step, count, batch_size)
            step += count
            start = stop
        waiting = {n: a[start:].copy() for n, a in group.items()} if start < samples_in(group) else {}
        # Gone, here and above, before the next one is asked for.
        del group
    if waiting:
        yield _placed(waiting, step, 1, samples_in(waiting))


def _placed(arrays: Mapping[str, Array], step: int, count: int, batch: int) -> Chunk:
    """A chunk from number `step` on, copied where it does not lie well already."""
    feeds = {}
    for name, array in arrays.items():
        array = array.reshape(count, batch, *array.shape[1:])
        due = _phase(step, array.nbytes // count)
        if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT_BYTES == due:
            feeds[name] = array
        else:
            feeds[name] = Room(array.nbytes).at(due, array.shape, array.dtype)
            feeds[name][...] = array
    return Chunk(feeds, count, batch)


def _phase(step: int, step_bytes: int) -> int:
    """Where the data of a step lie, modulo `ALIGNMENT_BYTES`; the next step's lie directly behind them."""
    return step * step_bytes % ALIGNMENT_BYTES


def _steps_in(data: Mapping[str, Array], batch_size: int, chunk_bytes: int) -> int:
    """How many steps of `data` have room in a chunk; one, if none has."""
    step_bytes = batch_size * sum(map(_sample_bytes, data.values()))
    return max(1, min(CHUNK_STEPS, chunk_bytes // max(1, step_bytes)))


def _sample_bytes(array: Array) -> int:
    return math.prod(array.shape[1:]) * array.dtype.itemsize
