"""The ways in which one section can be sent, each with its bytes and its error as measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from laconic.compression.plain import PEAK, exact
from laconic.compression.quantisers.ladder import LADDER
from laconic.compression.selection import dead_zone
from laconic.compression.settings import CodecSettings
from laconic.compression.transforms import TRANSFORMS
from laconic.compression.transforms.sparse import SPARSE
from laconic.compression.transforms.zero import ZERO
from laconic.compression.wire import Reader
from laconic.schema import Vector

Memory: TypeAlias = Mapping[int, Vector]
"""By a tensor's index, where the search for its principal rows begins next time."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a section is to hold: float32 values, shape `(values,)`, in rows of `columns` (1 or more)."""

    values: Vector
    columns: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A section's part as bytes, and the sum of squares that it leaves out."""

    part: bytes
    stages: tuple[str, ...]
    error: float
    memory: Vector | None = None

    def cost(self, price: float) -> float:
        """The Lagrangian: error plus `price`, squared error a bit, times the bits."""
        return self.error + price * 8 * len(self.part)


def measured(stretch: Stretch, part: bytes) -> Candidate:
    """What `part` makes of the values, by decoding it."""
    decoded = np.zeros(stretch.values.size, np.float32)
    reader = Reader(memoryview(part))
    read = TRANSFORMS.read(reader).read(reader, decoded.size)
    read.fill(decoded)
    return Candidate(part, read.stages, squared(stretch.values - decoded))


def squared(values: Vector) -> float:
    """Sum of squares in float64."""
    return float(np.square(values, dtype=np.float64).sum())


def candidates(
    stretch: Stretch, step: float, price: float, settings: CodecSettings, memory: Vector | None
) -> Iterator[Candidate]:
    """Every way that is worth comparing at a step, with `price` for a bit; at least one."""
    values = stretch.values
    total = squared(values)
    yield Candidate(ZERO.write(), ("zero",), total)
    if not total:
        return
    rungs = dead_zone(values, step, settings.bits)
    if rungs is not None:
        quantised = LADDER.write(rungs.negative, rungs.levels, rungs.ladder, settings.zstd_level)
        yield measured(stretch, SPARSE.write(rungs.mask, quantised, settings.zstd_level))
    # Where even the finest ladder leaves out more than the bits of float32 cost, or a scale would overflow.
    if total > price * 32 * values.size or float(np.abs(values).max()) > PEAK:
        yield Candidate(exact(values), ("dense", "float32"), 0.0)
