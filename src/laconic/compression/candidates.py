"""The ways in which one section can be sent, each with its bytes and its error as measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from laconic.compression.factorise import Matrix, principal, quantise_factors
from laconic.compression.plain import PEAK, exact
from laconic.compression.quantisers.float32 import FLOAT32
from laconic.compression.selection import squared
from laconic.compression.settings import CodecSettings
from laconic.compression.transforms.dense import DENSE
from laconic.compression.transforms.grid import GRID, Kept, estimated_bits, quantise
from laconic.compression.transforms.grid.steps import MAX_RUNGS, fitted, grid_step
from laconic.compression.transforms.low_rank import LOW_RANK
from laconic.compression.transforms.multiples import MOST, MULTIPLES, magnitudes_of
from laconic.compression.transforms.zero import ZERO
from laconic.schema import Vector

Memory: TypeAlias = Mapping[int, Matrix]
"""By a tensor's index, where the search for its principal rows begins next time."""


MATRIX = 1024
"""Values from which on a matrix is looked at for its rank: below, the headers cost what could be saved."""

OVERSTATED = 0.5
"""Share of its estimate that a grid may take: few real ones take less, those with rows alike, and there
low rank takes less still."""

SAMPLED = 1 << 18
"""Values from which on a sample of the rows says first whether a grid of all is worth trying."""

SAMPLE = 16

ROUND = 0.45
"""What is added to a magnitude in steps before it is cut to an integer: a little more zeros pays."""


FEW = (*range(1, 17), 18, 20, 23, 26, 29, 32, 36, 40, 45, 51, 57, 64)
"""How many values `few` sends."""


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


def candidates(
    stretch: Stretch, step: float, price: float, settings: CodecSettings, memory: Matrix | None
) -> Iterator[Candidate]:
    """Every way that is worth comparing at a step, with `price` for a bit; at least one."""
    values = stretch.values
    total = squared(values)
    yield Candidate(ZERO.write(), (ZERO.name,), total)
    if not total:
        return
    bound = total
    if settings.low_rank and values.size >= MATRIX and 1 < stretch.columns < values.size:
        for way in _low_rank(stretch, step, price, memory):
            bound = min(bound, way.cost(price))
            yield way
    if stretch.values.size < SAMPLED or _sampled_cost(stretch, step, price) < bound:
        yield from _grid(stretch, total, step, price, bound)
    # Where nothing sent costs more than the bits of float32, or where a scale would overflow.
    if total > price * 32 * values.size or float(np.abs(values).max()) > PEAK:
        yield Candidate(exact(values), (DENSE.name, FLOAT32.name), 0.0)


def _grid(stretch: Stretch, total: float, step: float, price: float, bound: float) -> Iterator[Candidate]:
    """`total`: the sum of squares of all values; `bound`: a cost that something else has already.

    Where the largest value is beyond the highest level, both with its loss and at the step that reaches it.
    """
    peak = max(float(stretch.values.max()), -float(stretch.values.min()))
    for own in (step, peak / MAX_RUNGS) if peak > (MAX_RUNGS + 0.5) * step else (step,):
        yield from _grid_at(stretch, total, own, price, bound)
    if peak > (MAX_RUNGS + 0.5) * step:
        yield from _multiples(stretch, max(step, peak / MOST))


def _grid_at(stretch: Stretch, total: float, step: float, price: float, bound: float) -> Iterator[Candidate]:
    found = quantise(stretch.values, stretch.columns, step, price / (step * step))
    if found is None:
        return
    kept, steps = found
    originals = stretch.values[kept.positions]
    error = total - squared(originals) + squared(originals - steps.values(kept.levels))
    if error + price * OVERSTATED * estimated_bits(kept, stretch.columns) > bound:
        return
    part, name = GRID.write(kept, stretch.columns, steps), GRID.name
    if part is None:
        part, name = MULTIPLES.write(kept.dense(), stretch.columns, steps), MULTIPLES.name
    if part is not None:
        yield Candidate(part, (name,), max(error, 0.0))


def few(stretch: Stretch) -> Iterator[Candidate]:
    """Nothing, and the largest values on one level: as many as `FEW` lists."""
    total = squared(stretch.values)
    yield Candidate(ZERO.write(), (ZERO.name,), total)
    falling = np.argsort(-np.abs(stretch.values), kind="stable")[: FEW[-1]]
    for count in FEW:
        positions = np.sort(falling[:count])
        originals = stretch.values[positions]
        if positions.size < count:
            return
        step = grid_step(float(np.abs(originals).mean()))
        if step is None:
            return
        levels = np.sign(originals).astype(np.int16)
        steps = fitted(step, np.divide(np.abs(originals), step, dtype=np.float32), np.abs(levels))
        if levels.all():
            part = GRID.write(Kept(stretch.values.size, positions, levels), stretch.columns, steps)
            if part is not None:
                error = total - squared(originals) + squared(originals - steps.values(levels))
                yield Candidate(part, (GRID.name,), max(error, 0.0))


def _multiples(stretch: Stretch, step: float) -> Iterator[Candidate]:
    """Every value at a step so fine that the largest is beyond a grid's levels."""
    exact_step = grid_step(step)
    if exact_step is None:
        return
    scaled = stretch.values / np.float32(exact_step)
    magnitudes = np.abs(scaled)
    levels = (magnitudes + np.float32(ROUND)).astype(np.int32)
    if not levels.any():
        return
    sent = np.flatnonzero(levels)
    steps = fitted(exact_step, magnitudes[sent], levels[sent])
    decoded = np.copysign(magnitudes_of(levels, steps), stretch.values)
    part = MULTIPLES.write(np.copysign(levels, stretch.values).astype(np.int32), stretch.columns, steps)
    if part is not None:
        yield Candidate(part, (MULTIPLES.name,), squared(stretch.values - decoded))


def _sampled_cost(stretch: Stretch, step: float, price: float) -> float:
    """About the least that a grid of all values costs, from one row in sixteen."""
    rows = np.ascontiguousarray(stretch.values.reshape(-1, stretch.columns)[::SAMPLE].ravel())
    share = stretch.values.size / rows.size
    total = squared(rows)
    found = quantise(rows, stretch.columns, step, price / (step * step))
    if found is None:
        return total * share
    kept, steps = found
    originals = rows[kept.positions]
    error = total - squared(originals) + squared(originals - steps.values(kept.levels))
    return share * (error + price * OVERSTATED * estimated_bits(kept, stretch.columns))


def _low_rank(stretch: Stretch, step: float, price: float, memory: Matrix | None) -> Iterator[Candidate]:
    matrix = stretch.values.reshape(-1, stretch.columns)
    principals = principal(matrix, price, memory)
    factors = quantise_factors(matrix, principals, price)
    if factors is None:
        return
    product = np.empty(matrix.size, np.float32)
    factors.fill(product)
    rest = Stretch(np.subtract(stretch.values, product, out=product), stretch.columns)
    left = squared(rest.values)
    ways = Candidate(ZERO.write(), (ZERO.name,), left), *_grid(rest, left, step, price, left)
    nested = min(ways, key=lambda c: c.cost(price))
    part = LOW_RANK.write(factors, nested.part)
    if part is not None:
        start = np.ascontiguousarray(principals.right.T)
        yield Candidate(part, (LOW_RANK.name, *nested.stages), nested.error, start)
