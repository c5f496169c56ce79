"""The writing side of a grid: classes, gaps, levels and signs to streams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.adaptive import encode_streams
from laconic.compression.bits import Codes
from laconic.compression.transforms.grid.classes import Axis, binary_entropy, classed, most_members, whole
from laconic.compression.transforms.grid.dealing import stream
from laconic.compression.transforms.grid.gaps import (
    CONTEXTS,
    EXTRA,
    Integers,
    density,
    pack_widths,
    symbols_of,
)
from laconic.compression.transforms.grid.layout import Layout
from laconic.compression.transforms.grid.priors import gap_prior, level_prior, sign_prior
from laconic.compression.transforms.grid.quantise import Kept
from laconic.compression.transforms.grid.steps import Steps

_BLOCK_BITS = 10.0
_SIGN_CUTS = (
    (),
    (0.5,),
    (0.15, 0.85),
    (0.05, 0.3, 0.7, 0.95),
    (0.02, 0.1, 0.25, 0.4, 0.6, 0.75, 0.9, 0.98),
)
"""Shares of negative values at which the sign classes of rows end, for 1, 2, 3, 5 and 9 classes."""

_SIGN_EDGES = np.array(sorted({cut for cuts in _SIGN_CUTS for cut in cuts}))
_CLASS_OF = np.stack([np.searchsorted(c, np.append(0, _SIGN_EDGES), side="right") for c in _SIGN_CUTS])
"""The class of a row whose share lies between two edges, for each way to cut: shape `(ways, edges + 1)`."""

_MEMBERS = (_CLASS_OF[:, None, :] == np.arange(9)[:, None]).astype(np.float64)
"""The same as sums: shape `(ways, 9, edges + 1)`."""


@dataclass(frozen=True, slots=True)
class _Cells:
    """Kept values by row and column."""

    rows: Integers
    columns: Integers
    shape: tuple[int, int]


def written(kept: Kept, columns: int, steps: Steps) -> tuple[Layout, bytes, bytes]:
    """Header, coded symbols and low bits."""
    row = kept.positions // columns
    cells = _Cells(row, kept.positions - row * columns, (kept.values // columns, columns))
    rows, cols = _axes(cells)
    counts, local = _by_block(cells, rows, cols)
    order = None if local is None else np.argsort(local)
    row_sizes, column_sizes = rows.sizes(), cols.sizes()
    sizes = np.outer(row_sizes, column_sizes)
    used = counts > 0
    bases = (np.cumsum(sizes) - sizes.ravel())[used.ravel()]
    cell = kept.positions if local is None or order is None else local[order]
    firsts = (np.cumsum(counts) - counts.ravel())[used.ravel()]
    before = np.append(-1, cell[:-1])
    before[firsts] = bases - 1
    gaps = cell - before - 1
    shifts = np.array([density(int(n), int(k))[0] for n, k in zip(sizes[used], counts[used], strict=True)])
    shift = np.repeat(shifts, counts[used])
    shifted = gaps >> shift
    symbols = symbols_of(shifted)
    extra = EXTRA[symbols]
    widths = extra + shift
    low = gaps & (1 << widths) - 1
    negative = (kept.levels < 0).astype(np.uint8)
    level = (np.abs(kept.levels) - 1).astype(np.uint8)
    if order is not None:
        negative, level, row = negative[order], level[order], row[order]
    of_row, classes = sign_classes(row, negative, cells.shape[0])
    if not classes:
        low, widths = np.concatenate([low, negative]), np.concatenate([widths, np.ones(row.size, np.int64)])
    if counts.size == 1 and classes < 2:
        # Nothing depends on the columns, so that they need not be said.
        columns = kept.values
        row_sizes, column_sizes = np.array([1]), np.array([columns])
    layout = Layout(kept.values, columns, steps, counts, classes)
    gap_contexts = layout.gap_contexts(row_sizes, column_sizes)
    gap_alphabet = layout.gap_alphabet(row_sizes, column_sizes)
    streams = [stream(a.classes, None, a.count) for a in (rows, cols) if a.classes is not None]
    streams.append(stream(symbols, gap_contexts, gap_alphabet, CONTEXTS, gap_prior(gap_alphabet)))
    if steps.rungs > 1:
        count = layout.level_contexts_count
        prior = level_prior(steps.rungs, layout.kept, count)
        streams.append(stream(level, layout.level_contexts(), steps.rungs, count, prior))
    if classes > 1:
        filled = np.flatnonzero(np.bincount(row, minlength=cells.shape[0]))
        streams.append(stream(of_row[filled], None, classes))
        streams.append(stream(negative, of_row[row], 2, classes, sign_prior(classes)))
    elif classes:
        streams.append(stream(negative, None, 2, 1, sign_prior(1)))
    return layout, encode_streams(streams), pack_widths(low, widths)


def _axes(cells: _Cells) -> tuple[Axis, Axis]:
    """Classes of rows and of columns, as many as earn their bits."""
    height, width = cells.shape
    row_counts = np.bincount(cells.rows, minlength=height)
    column_counts = np.bincount(cells.columns, minlength=width)
    longest = most_members(height * width)
    rows = [whole(height)]
    columns = [whole(width)]
    # Lines that keep nothing are in a class of their own, so they do not count as places.
    if 1 < height <= longest:
        rows.append(classed(row_counts, int(np.count_nonzero(column_counts))))
    if 1 < width <= longest:
        columns.append(classed(column_counts, int(np.count_nonzero(row_counts))))
    counts = _counts(cells, rows[-1], columns[-1])
    pairs = [(r, c) for r in rows for c in columns]
    return min(pairs, key=lambda pair: _bits(counts, *pair))


def _bits(counts: Integers, rows: Axis, columns: Axis) -> float:
    """What positions cost with these classes, about; `counts` with classes of both axes if there are any."""
    if rows.classes is None:
        counts = counts.sum(axis=0, keepdims=True)
    if columns.classes is None:
        counts = counts.sum(axis=1, keepdims=True)
    sizes = np.outer(rows.sizes(), columns.sizes())
    bits = float((sizes * binary_entropy(counts / np.maximum(sizes, 1))).sum())
    for axis in (rows, columns):
        if axis.classes is None:
            continue
        shares = axis.sizes() / axis.length
        bits -= axis.length * float((shares * np.log2(np.maximum(shares, 1e-12))).sum())
        bits += 8 * (axis.count - 1)
    return bits + _BLOCK_BITS * float(np.count_nonzero(counts))


def _counts(cells: _Cells, rows: Axis, columns: Axis) -> Integers:
    shape = rows.count, columns.count
    return np.bincount(_block_of(cells, rows, columns), minlength=shape[0] * shape[1]).reshape(shape)


def _block_of(cells: _Cells, rows: Axis, columns: Axis) -> Integers:
    block = np.zeros(cells.rows.size, np.int64)
    if rows.classes is not None:
        block += rows.classes.astype(np.int64)[cells.rows] * columns.count
    if columns.classes is not None:
        block += columns.classes[cells.columns]
    return block


def _by_block(cells: _Cells, rows: Axis, columns: Axis) -> tuple[Integers, Integers | None]:
    """Kept values in each block, and each one's place when blocks stand one after another.

    No places (None) where there is one block: they are as in the tensor.
    """
    if rows.classes is None and columns.classes is None:
        return np.array([[cells.rows.size]]), None
    block = _block_of(cells, rows, columns)
    shape = rows.count, columns.count
    counts = np.bincount(block, minlength=shape[0] * shape[1]).reshape(shape)
    sizes = np.outer(rows.sizes(), columns.sizes()).ravel()
    bases = np.cumsum(sizes) - sizes
    widths = np.tile(columns.sizes(), rows.count)
    place = bases[block] + rows.ranks()[cells.rows] * widths[block] + columns.ranks()[cells.columns]
    return counts, place


def sign_classes(row: Integers, negative: Codes, height: int) -> tuple[Codes, int]:
    """Classes of rows by their share of negative values, and how many; 0 where plain bits are less."""
    kept = np.bincount(row, minlength=height)
    minus = np.bincount(row, weights=negative, minlength=height)
    between = np.searchsorted(_SIGN_EDGES, minus / np.maximum(kept, 1), side="right")
    sums = [np.bincount(between, weights=w, minlength=_CLASS_OF.shape[1]) for w in (kept > 0, kept, minus)]
    rows, values, negatives = np.moveaxis(_MEMBERS @ np.stack(sums, 1), 2, 0)
    bits = _adaptive_bits(rows[:, None]) + _adaptive_bits(np.stack([values - negatives, negatives], 2))
    way = int(bits.argmin())
    if bits[way] >= row.size:
        return np.zeros(height, np.uint8), 0
    return _CLASS_OF[way, between].astype(np.uint8), len(_SIGN_CUTS[way]) + 1


def _adaptive_bits(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The order-0 entropy of symbols by context, and about what learning it costs: shape `(ways,)`.

    `counts`: shape `(ways, contexts, alphabet)`.
    """
    sums = counts.sum(axis=2)
    bits = -(counts * np.log2(np.maximum(counts, 1) / np.maximum(sums, 1)[:, :, None])).sum(axis=(1, 2))
    learning = (np.count_nonzero(counts, axis=2) - 0.5) * np.log2(sums + 1)
    total: NDArray[np.float64] = bits + np.maximum(learning, 0).sum(axis=1)
    return total
