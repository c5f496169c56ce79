"""The ways in which one section can be sent, each with its bytes and its error as measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from laconic.compression.factorise import Matrix, principal, quantise_factors
from laconic.compression.plain import PEAK, exact
from laconic.compression.settings import CodecSettings
from laconic.compression.stages import DOT, blocks
from laconic.compression.transforms import TRANSFORMS
from laconic.compression.transforms.grid import GRID, quantise
from laconic.compression.transforms.low_rank import LOW_RANK
from laconic.compression.transforms.zero import ZERO
from laconic.compression.wire import Reader
from laconic.schema import Vector

Memory: TypeAlias = Mapping[int, Matrix]
"""By a tensor's index, where the search for its principal rows begins next time."""


MATRIX = 1024
"""Values from which on a matrix is looked at for its rank: below, the headers cost what could be saved."""

STEP_RATIOS = (1.0, 1.5)
"""Steps tried at one price: where few values are worth sending, a coarser step is the better one."""


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
    memory: Matrix | None = None

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
    """Sum of squares in float64, a piece at a time: ten million values take 8 ms so, and 41 at once."""
    pieces = (values[a:b].astype(np.float64) for a, b in blocks(values.size, DOT))
    return float(sum(np.dot(p, p) for p in pieces))


def candidates(
    stretch: Stretch, step: float, price: float, settings: CodecSettings, memory: Matrix | None
) -> Iterator[Candidate]:
    """Every way that is worth comparing at a step, with `price` for a bit; at least one."""
    values = stretch.values
    total = squared(values)
    yield Candidate(ZERO.write(), ("zero",), total)
    if not total:
        return
    yield from _grids(stretch, step, price)
    if settings.low_rank and values.size >= MATRIX and 1 < stretch.columns < values.size:
        yield from _low_ranks(stretch, step, price, memory)
    # Where even the finest ladder leaves out more than the bits of float32 cost, or a scale would overflow.
    if total > price * 32 * values.size or float(np.abs(values).max()) > PEAK:
        yield Candidate(exact(values), ("dense", "float32"), 0.0)


def _grids(stretch: Stretch, step: float, price: float) -> Iterator[Candidate]:
    for ratio in STEP_RATIOS:
        own = step * ratio
        found = quantise(stretch.values, stretch.columns, own, price / (own * own))
        part = GRID.write(found[0], stretch.columns, found[1]) if found is not None else None
        if part is not None:
            yield measured(stretch, part)


def _low_ranks(stretch: Stretch, step: float, price: float, memory: Matrix | None) -> Iterator[Candidate]:
    matrix = stretch.values.reshape(-1, stretch.columns)
    principals = principal(matrix, price, memory)
    factors = quantise_factors(matrix, principals, price)
    if factors is None:
        return
    product = np.zeros(matrix.size, np.float32)
    factors.fill(product)
    rest = Stretch(stretch.values - product, stretch.columns)
    found = min(
        (Candidate(ZERO.write(), ("zero",), squared(rest.values)), *_grids(rest, step, price)),
        key=lambda c: c.cost(price),
    )
    part = LOW_RANK.write(factors, found.part)
    if part is not None:
        start = np.ascontiguousarray(principals.right.T)
        yield replace(measured(stretch, part), memory=start)
