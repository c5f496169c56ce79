"""What a grid's two sides share: its header, and its blocks of row class times column class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from laconic.compression.bits import Codes
from laconic.compression.transforms.grid.classes import MOST, most_members
from laconic.compression.transforms.grid.gaps import Integers, alphabet_of, density
from laconic.compression.transforms.grid.priors import SIGN_SHARES
from laconic.compression.transforms.grid.steps import Steps, read_steps
from laconic.compression.wire import Reader, varint
from laconic.errors import Malformed


def most_kept(values: int) -> int:
    """How many values of a tensor a grid may keep: bounds a decoder's memory."""
    return max(1 << 16, values // 2)


SIGN_CLASSES = (0, *SIGN_SHARES)
"""How many sign classes rows may have."""

PIECE = 1 << 13
"""Kept values whose positions are worked out at a time: bounds scratch memory, and fits a cache."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A grid's header.

    `counts`: kept values in each block, int64, shape `(row_classes, column_classes)`. `sign_classes` (one of
    `SIGN_CLASSES`): 0 means that signs are bits of their own. `columns` is `values` where neither blocks nor
    sign classes depend on it.
    """

    values: int
    columns: int
    steps: Steps
    counts: Integers
    sign_classes: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.values // self.columns

    @property
    def kept(self) -> int:
        """Number of values that are not zero."""
        return int(self.counts.sum())

    @property
    def symbols(self) -> int:
        """Kept values, and rows and columns that have classes."""
        rows, columns = self.counts.shape
        return self.kept + (self.rows if rows > 1 else 0) + (self.columns if columns > 1 else 0)

    @property
    def least_low_bytes(self) -> int:
        """What the header alone tells of low bits: signs, and a single block's shifts."""
        shift = density(self.values, self.kept)[0] if self.counts.size == 1 else 0
        return (self.kept * (shift + (not self.sign_classes)) + 7) // 8

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Row class, column class and kept values of each block that keeps any."""
        for a, b in zip(*np.nonzero(self.counts), strict=True):
            yield int(a), int(b), int(self.counts[a, b])

    def gap_contexts(self, row_sizes: Integers, column_sizes: Integers) -> Codes:
        """Each kept value's context by the density of its block: uint8, shape `(kept,)`."""
        contexts = [density(int(row_sizes[a] * column_sizes[b]), k)[1] for a, b, k in self.blocks()]
        return np.repeat(np.array(contexts, np.uint8), self.counts[self.counts > 0])

    def gap_alphabet(self, row_sizes: Integers, column_sizes: Integers) -> int:
        """One above the symbol of the longest gap that any block can have; none keeps more than its cells."""
        alphabet = 1
        for a, b, k in self.blocks():
            cells = int(row_sizes[a] * column_sizes[b])
            alphabet = max(alphabet, alphabet_of(cells - k >> density(cells, k)[0]))
        return alphabet

    def level_contexts(self) -> Codes:
        """Each kept value's context by the classes of its row and column: uint8, shape `(kept,)`."""
        contexts = [a + b for a, b, _ in self.blocks()]
        return np.repeat(np.array(contexts, np.uint8), self.counts[self.counts > 0])

    @property
    def level_contexts_count(self) -> int:
        """How many contexts levels have."""
        return int(sum(self.counts.shape)) - 1

    def to_bytes(self) -> bytes:
        """Kind, then classes and columns where there are several classes, steps and counts."""
        rows, columns = self.counts.shape
        blocks, several = self.counts.size > 1, self.steps.rungs > 1
        signs = SIGN_CLASSES.index(self.sign_classes)
        out = bytes([signs | len(self.steps.offsets) << 3 | several << 6 | blocks << 7])
        skip_row, skip_column = _empty_first(self.counts)
        if blocks:
            out += bytes([rows - 1 | columns - 1 << 3 | skip_row << 6 | skip_column << 7])
        if blocks or self.sign_classes > 1:
            out += varint(0 if self.columns == self.values else self.columns)
        listed = self.counts[int(skip_row) :, int(skip_column) :]
        return out + self.steps.to_bytes() + b"".join(varint(k) for k in listed.ravel().tolist())


def read_layout(reader: Reader, values: int) -> Layout:
    """The inverse of `Layout.to_bytes`. Raises `Malformed` or `NonFinite`."""
    kind = reader.byte("kind of a grid")
    if not values or kind & 7 >= len(SIGN_CLASSES):
        raise Malformed("kind of a grid", value=kind, limit=f"sign classes {SIGN_CLASSES}")
    sign_classes, blocks = SIGN_CLASSES[kind & 7], kind >> 7
    classes = reader.byte("classes of a grid") if blocks else 0
    shape = (classes & 7) + 1, (classes >> 3 & 7) + 1
    skip_row, skip_column = classes >> 6 & 1, classes >> 7
    columns = values
    if blocks or sign_classes > 1:
        columns = reader.varint("columns of a grid", limit=values) or values
    if values % columns:
        raise Malformed("columns of a grid", value=columns, limit=f"a divisor of {values}")
    if blocks and shape == (1, 1):
        raise Malformed("classes of a grid", value=classes, limit="several")
    for count, skip, length in zip(shape, (skip_row, skip_column), (values // columns, columns), strict=True):
        if count > MOST or skip >= count or (count > 1 and length > most_members(values)):
            raise Malformed("classes of a grid's axis", value=count, limit=length)
    steps = read_steps(reader, kind >> 3 & 7, several=bool(kind >> 6 & 1))
    counts = np.zeros(shape, np.int64)
    left = most_kept(values)
    for a in range(skip_row, shape[0]):
        for b in range(skip_column, shape[1]):
            counts[a, b] = reader.varint("kept values of a block", limit=min(left, values))
            left -= int(counts[a, b])
    kept = int(counts.sum())
    if not 1 <= kept <= values:
        raise Malformed("kept values of a grid", value=kept, limit=values)
    if (skip_row, skip_column) != _empty_first(counts):
        raise Malformed("empty classes of a grid", value=classes)
    return Layout(values, columns, steps, counts, sign_classes)


def _empty_first(counts: Integers) -> tuple[int, int]:
    """1 for each axis that has several classes and keeps nothing in the first one."""
    skip_row = counts.shape[0] > 1 and not counts[0].any()
    skip_column = counts.shape[1] > 1 and not counts[:, 0].any()
    return int(skip_row), int(skip_column)


def pieces(start: int, stop: int) -> Iterator[slice]:
    """Slices of at most `PIECE` from `start` to `stop`."""
    for at in range(start, stop, PIECE):
        yield slice(at, min(at + PIECE, stop))
