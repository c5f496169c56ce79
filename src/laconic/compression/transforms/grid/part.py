"""A grid as it lies in a frame, and its decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression.adaptive import StreamDecoder
from laconic.compression.bits import Codes
from laconic.compression.stages import Entries, entropy_bits
from laconic.compression.transforms.grid.classes import Axis, binary_entropy
from laconic.compression.transforms.grid.dealing import DealtDecoder
from laconic.compression.transforms.grid.gaps import BASE, CONTEXTS, EXTRA, Integers, WidthReader, density
from laconic.compression.transforms.grid.layout import Layout, pieces
from laconic.compression.transforms.grid.priors import gap_prior, level_prior, sign_prior
from laconic.errors import Malformed
from laconic.schema import Vector

Positions: TypeAlias = NDArray[np.signedinteger]
"""Positions in a tensor; of 4 bytes where they suffice, because they outlast the decoding of signs."""


@dataclass(frozen=True, slots=True)
class GridPart:
    """Header, coded symbols and low bits."""

    layout: Layout
    body: memoryview
    low: memoryview
    stages: tuple[str, ...] = ("grid",)

    @property
    def params(self) -> Mapping[str, object]:
        """Kept values, classes, levels, and the lowest and highest magnitude."""
        magnitudes = self.layout.steps.magnitudes()
        return MappingProxyType(
            {
                "kept": self.layout.kept,
                "rows": self.layout.rows,
                "columns": self.layout.columns,
                "row_classes": self.layout.counts.shape[0],
                "column_classes": self.layout.counts.shape[1],
                "sign_classes": self.layout.sign_classes,
                "rungs": magnitudes.size,
                "lowest": float(magnitudes[0]),
                "highest": float(magnitudes[-1]),
            }
        )

    def fill(self, out: Vector) -> None:
        """Write the kept values where they belong. Raises `WireError`."""
        positions, levels, negative = self._decoded()
        for where in pieces(0, positions.size):
            out[positions[where]] = self._values(levels, negative, where)

    def entries(self) -> Entries:
        """The kept values in rising order of position. Raises `WireError`."""
        positions, levels, negative = self._decoded()
        values = np.concatenate([self._values(levels, negative, p) for p in pieces(0, positions.size)])
        if self.layout.counts.size == 1:
            return positions.astype(np.int64), values
        order = np.argsort(positions)
        return positions[order].astype(np.int64), values[order]

    def entropy_bits(self) -> float:
        """Of the kept values as symbols and of the mask. Raises `WireError`."""
        share = np.array([self.layout.kept / self.layout.values])
        mask_bits = self.layout.values * float(binary_entropy(share)[0])
        return mask_bits + entropy_bits(self.entries()[1])

    def _values(self, levels: Codes | None, negative: Codes, where: slice) -> Vector:
        magnitudes = self.layout.steps.magnitudes()
        count = where.stop - where.start
        values: Vector = np.full(count, magnitudes[0]) if levels is None else magnitudes[levels[where]]
        np.negative(values, out=values, where=negative[where].view(np.bool_))
        return values

    def _decoded(self) -> tuple[Positions, Codes | None, Codes]:
        """Positions, levels from 0 (None if all are) and signs, in the order of the frame."""
        layout, decoder, low = self.layout, DealtDecoder(StreamDecoder(self.body)), WidthReader(self.low)
        rows = _axis(decoder, layout.rows, layout.counts.shape[0])
        columns = _axis(decoder, layout.columns, layout.counts.shape[1])
        row_sizes, column_sizes = rows.sizes(), columns.sizes()
        for a, b, kept in layout.blocks():
            if kept > int(row_sizes[a] * column_sizes[b]):
                raise Malformed(
                    "kept values of a block", value=kept, limit=int(row_sizes[a] * column_sizes[b])
                )
        gap_alphabet = layout.gap_alphabet(row_sizes, column_sizes)
        gaps = decoder.symbols(
            layout.gap_contexts(row_sizes, column_sizes),
            layout.kept,
            alphabet=gap_alphabet,
            contexts_count=CONTEXTS,
            prior=gap_prior(gap_alphabet),
        )
        width = np.dtype(np.int32 if layout.values <= 1 << 31 else np.int64)
        positions: Positions = np.empty(layout.kept, width)
        for where, piece in _positions(layout, rows, columns, gaps, low):
            positions[where] = piece
        del gaps
        levels = None
        if layout.steps.rungs > 1:
            count = layout.level_contexts_count
            levels = decoder.symbols(
                layout.level_contexts(),
                layout.kept,
                alphabet=layout.steps.rungs,
                contexts_count=count,
                prior=level_prior(layout.steps.rungs, layout.kept, count),
            )
        negative = self._signs(decoder, low, positions)
        decoder.finish()
        low.finish()
        return positions, levels, negative

    def _signs(self, decoder: DealtDecoder, low: WidthReader, positions: Positions) -> Codes:
        kept, classes = positions.size, self.layout.sign_classes
        if not classes:
            return low.bits(kept)
        if classes == 1:
            return decoder.symbols(None, kept, alphabet=2, prior=sign_prior(1))
        of_row = np.zeros(self.layout.rows, np.uint8)
        for where in pieces(0, kept):
            of_row[positions[where] // self.layout.columns] = 1
        used = np.flatnonzero(of_row)
        of_row[used] = decoder.symbols(None, used.size, alphabet=classes)
        contexts = np.empty(kept, np.uint8)
        for where in pieces(0, kept):
            contexts[where] = of_row[positions[where] // self.layout.columns]
        return decoder.symbols(contexts, kept, alphabet=2, contexts_count=classes, prior=sign_prior(classes))


def _axis(decoder: DealtDecoder, length: int, count: int) -> Axis:
    return Axis(length, count, decoder.symbols(None, length, alphabet=count) if count > 1 else None)


def _positions(
    layout: Layout, rows: Axis, columns: Axis, gaps: Codes, low: WidthReader
) -> Iterator[tuple[slice, Integers]]:
    """Positions in the tensor, piece by piece. Raises `Malformed` when a gap leaves its block."""
    in_row_class, in_column_class = rows.members(), columns.members()
    start = 0
    for a, b, kept in layout.blocks():
        row_indices = None if in_row_class is None else in_row_class[a]
        column_indices = None if in_column_class is None else in_column_class[b]
        height = layout.rows if row_indices is None else row_indices.size
        width = layout.columns if column_indices is None else column_indices.size
        shift, _ = density(height * width, kept)
        last = -1
        for where in pieces(start, start + kept):
            symbols = gaps[where]
            base = BASE[symbols]
            # With this a gap is below twice a block's cells: its bits fit a word, and no sum overflows.
            if int(base.max()) > height * width >> shift:
                raise Malformed("gap of a grid", value=int(base.max()) << shift, limit=height * width)
            local = (base << shift) + low.numbers(EXTRA[symbols] + shift)
            local += 1
            local[0] += last
            np.cumsum(local, out=local)
            last = int(local[-1])
            if last >= height * width:
                raise Malformed("position in a block", value=last, limit=height * width - 1)
            if column_indices is not None or row_indices is not None:
                row = local // width
                local -= row * width
                if column_indices is not None:
                    local = column_indices[local]
                local += (row if row_indices is None else row_indices[row]) * layout.columns
            yield where, local
        start += kept
