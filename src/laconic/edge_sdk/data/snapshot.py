"""What the learner asks of data: how much there is, and a view that stays the same while it trains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.errors import DataError

Array: TypeAlias = NDArray[Any]

_HASHED_BYTES = 2**20
"""So much of an array is copied at a time to be hashed, if it does not lie in one piece."""


@dataclass(frozen=True)
class Snapshot:
    """Labelled examples that stay the same: arrays by the names of the model's inputs and targets.

    `x` and `y` have the bundle's dtypes, samples on axis 0, and the same number of them; they may be
    memory-mapped. `skipped` counts rows that were left out because they were bad.
    """

    x: Mapping[str, Array]
    y: Mapping[str, Array]
    skipped: int = field(default=0, compare=False)

    @property
    def samples(self) -> int:
        """How many examples there are."""
        return len(next(iter(self.x.values())))

    @cached_property
    def tag(self) -> bytes:
        """16 bytes that stand for the content: BLAKE2b of names, dtypes, shapes and values.

        The same in every process, so that training which was interrupted can tell whether the data are still
        the same. Computed when it is first asked for: it reads everything once.
        """
        hashed = hashlib.blake2b(digest_size=16)
        for kind, arrays in (("x", self.x), ("y", self.y)):
            for name in sorted(arrays):
                array = arrays[name]
                hashed.update(f"{kind}/{name}/{array.dtype.str}/{array.shape}\0".encode())
                rows = max(1, _HASHED_BYTES // max(1, array[:1].nbytes))
                for start in range(0, len(array), rows):
                    hashed.update(np.ascontiguousarray(array[start : start + rows]).data)
        return hashed.digest()


class Source(Protocol):
    """Where the learner's examples come from."""

    @property
    def samples(self) -> int:
        """How many examples there are, as far as that is known without looking at them.

        Asked on the event loop, whenever the device connects and for each task: it must not wait, and must
        not raise. 0 means that a task would be in vain: a source that cannot know says at least 1.
        """
        ...

    def snapshot(self) -> Snapshot:
        """The examples of now, at least one, checked. Called in the thread that trains; it may take its time.

        Raises `DataError`.
        """
        ...


def samples_of(source: Source) -> int:
    """The number of `source`'s samples; 1 from one that fails, since its snapshot will say how."""
    try:
        return max(0, int(source.samples))
    except Exception:  # whatever the code of a program's own source raises
        return 1


def snapshot_of(source: Source) -> Snapshot:
    """The examples of `source`.

    Raises `DataError`, also for whatever the code of a program's own source raises, and for none.
    """
    try:
        snapshot = source.snapshot()
    except DataError:
        raise
    except Exception as e:
        raise failed(type(source).__name__, e) from e
    if snapshot.samples < 1:
        raise DataError("there are no examples to learn from", remedy="the next task asks again")
    return snapshot


def failed(what: str, error: Exception) -> DataError:
    """The error for `what`, a program's own code, which has raised `error`."""
    return DataError(
        f"{what} failed to give its examples",
        value=f"{type(error).__name__}: {error}",
        remedy="the next task asks again",
    )
