"""Transform 0x07 `multiples`: every value of a tensor as a multiple of a step, most of them not zero.

Rows and columns fall into classes by their mean magnitude; a value's magnitude is coded with the sum of its
row's and its column's class for context, so that its frequencies are those of values of about the same size.
A grid, which says where values are, is as short where fewer than half are kept, and shorter where few are;
but it needs memory for every position, and its levels end at 255. Here large magnitudes are a token and low
bits, so that a tensor of heavy tails can have a fine step.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from laconic.compression.adaptive import StreamDecoder, SymbolStream, affordable, encode_streams
from laconic.compression.bits import Codes
from laconic.compression.stages import TensorPart, blocks, entropy_bits
from laconic.compression.transforms.grid.classes import most_members
from laconic.compression.transforms.grid.gaps import BASE, EXTRA, WidthReader, pack_widths, symbols_of
from laconic.compression.transforms.grid.layout import PIECE
from laconic.compression.transforms.grid.steps import LISTED, STEP, Steps
from laconic.compression.transforms.grid.writing import sign_classes
from laconic.compression.wire import Reader, varint
from laconic.errors import Malformed, NonFinite
from laconic.schema import Vector

ALPHABET = 35
"""Tokens are the gap symbols of a grid; so many keep 128 times a magnitude below 2**24."""

MOST = int(BASE[ALPHABET - 1]) + (1 << int(EXTRA[ALPHABET - 1])) - 1
"""The largest magnitude, in steps: 98303."""

CLASSES = 16
"""Classes of an axis at most."""

_OCTAVE = 2
"""Classes to an octave of mean magnitude: 3 or 4 make as few bytes."""

Magnitudes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MultiplesPart:
    """Header, coded symbols and low bits."""

    values: int
    columns: int
    shape: tuple[int, int]
    sign_classes: int
    alphabet: int
    steps: Steps
    body: memoryview
    low: memoryview
    stages: tuple[str, ...] = ("multiples",)

    @property
    def params(self) -> Mapping[str, object]:
        """The matrix, its classes, tokens and the step."""
        rows, columns = self.shape
        return MappingProxyType(
            {
                "rows": self.values // self.columns,
                "columns": self.columns,
                "row_classes": rows,
                "column_classes": columns,
                "sign_classes": self.sign_classes,
                "tokens": self.alphabet,
                "step": STEP * self.steps.scale,
            }
        )

    def fill(self, out: Vector) -> None:
        """Write every value. Raises `WireError`."""
        decoder, low = StreamDecoder(self.body), WidthReader(self.low)
        height = self.values // self.columns
        of_rows, of_columns = (
            decoder.symbols(None, length, alphabet=count) if count > 1 else np.zeros(length, np.uint8)
            for length, count in zip((height, self.columns), self.shape, strict=True)
        )
        tokens = decoder.symbols(
            np.add.outer(of_rows, of_columns).ravel(),
            self.values,
            alphabet=self.alphabet,
            contexts_count=sum(self.shape) - 1,
        )
        for start, stop in blocks(self.values, PIECE):
            token = tokens[start:stop]
            out[start:stop] = magnitudes_of(BASE[token] + low.numbers(EXTRA[token]), self.steps)
        for where, negative in self._signs(decoder, low, tokens):
            out[where] = np.where(negative, -out[where], out[where])
        decoder.finish()
        low.finish()

    def _signs(
        self, decoder: StreamDecoder, low: WidthReader, tokens: Codes
    ) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
        """Which values are negative, piece by piece."""
        signs: Codes | None = None
        sent, classes = int(np.count_nonzero(tokens)), self.sign_classes
        if classes == 1:
            signs = decoder.symbols(None, sent, alphabet=2)
        elif classes:
            of_row = np.zeros(self.values // self.columns, np.uint8)
            used = np.flatnonzero(tokens.reshape(-1, self.columns).any(axis=1))
            of_row[used] = decoder.symbols(None, used.size, alphabet=classes)
            contexts, at = np.empty(sent, np.uint8), 0
            for start, stop in blocks(self.values, PIECE):
                which = start + np.flatnonzero(tokens[start:stop])
                contexts[at : at + which.size] = of_row[which // self.columns]
                at += which.size
            signs = decoder.symbols(contexts, sent, alphabet=2, contexts_count=classes)
        at = 0
        for start, stop in blocks(self.values, PIECE):
            which = np.flatnonzero(tokens[start:stop])
            negative = np.zeros(stop - start, np.bool_)
            negative[which] = low.bits(which.size) if signs is None else signs[at : at + which.size]
            at += which.size
            yield slice(start, stop), negative

    def entries(self) -> None:
        """None: every value is sent."""
        return None

    def entropy_bits(self) -> float:
        """Of the values, as symbols. Raises `WireError`."""
        values = np.empty(self.values, np.float32)
        self.fill(values)
        return entropy_bits(values)


@dataclass(frozen=True, slots=True)
class Multiples:
    """Columns, classes, scale, length and bytes of the coded symbols, length and bytes of the low bits."""

    number: int = 0x07
    name: str = "multiples"

    def write(self, levels: NDArray[np.signedinteger], columns: int, steps: Steps) -> bytes | None:
        """The transform's number and its part; None where a level is beyond `MOST`, or all too regular.

        `levels`: shape `(values,)`, not all 0; `columns` divides `values`.
        """
        magnitudes = np.abs(levels.astype(np.int64))
        if int(magnitudes.max()) > MOST:
            return None
        tokens = symbols_of(magnitudes)
        alphabet = int(tokens.max()) + 1
        shape = levels.size // columns, columns
        axes = _axes(magnitudes.reshape(shape), tokens.reshape(shape), alphabet)
        counts = [int(a.max(initial=0)) + 1 for a in axes]
        streams = [SymbolStream(a, None, c) for a, c in zip(axes, counts, strict=True) if c > 1]
        streams.append(SymbolStream(tokens, np.add.outer(*axes).ravel(), alphabet, sum(counts) - 1))
        widths = EXTRA[tokens]
        wide = np.flatnonzero(widths)
        numbers, widths = (magnitudes - BASE[tokens])[wide], widths[wide]
        sent = np.flatnonzero(magnitudes)
        row, negative = sent // columns, (levels[sent] < 0).astype(np.uint8)
        of_row, classes = sign_classes(row, negative, shape[0])
        if not classes:
            numbers = np.concatenate([numbers, negative])
            widths = np.concatenate([widths, np.ones(sent.size, np.int64)])
        elif classes > 1:
            streams.append(SymbolStream(of_row[np.bincount(row, minlength=shape[0]) > 0], None, classes))
            streams.append(SymbolStream(negative, of_row[row], 2, classes))
        else:
            streams.append(SymbolStream(negative, None, 2))
        body, low = encode_streams(streams), pack_widths(numbers, widths)
        if not affordable(_symbols(levels.size, columns, counts), len(body) + len(low)):
            return None
        head = bytes([self.number]) + varint(0 if shape[0] == 1 else columns)
        head += bytes([counts[0] - 1 | counts[1] - 1 << 4, classes | len(steps.offsets) << 4, alphabet])
        head += struct.pack("<f", steps.scale)[2:] + bytes(steps.offsets)
        return head + varint(len(body)) + body + varint(len(low)) + low

    def read(self, reader: Reader, values: int) -> TensorPart:
        """Take header, symbols and low bits. Raises `WireError`."""
        columns = reader.varint("columns of multiples", limit=values) or values
        if not values or values % columns:
            raise Malformed("columns of multiples", value=columns, limit=f"a divisor of {values}")
        classes = reader.byte("classes of multiples")
        counts = (classes & 15) + 1, (classes >> 4) + 1
        for count, length in zip(counts, (values // columns, columns), strict=True):
            if count > 1 and length > most_members(values):
                raise Malformed("classes of an axis of multiples", value=count, limit=length)
        listed_and_signs = reader.byte("offsets and sign classes of multiples")
        alphabet = reader.byte("tokens of multiples")
        if not 2 <= alphabet <= ALPHABET:
            raise Malformed("tokens of multiples", value=alphabet, limit=f"2 to {ALPHABET}")
        high = bytes(reader.take(2, "scale of multiples"))
        scale, listed = Reader(memoryview(b"\0\0" + high)).scale("scale of multiples"), listed_and_signs >> 4
        if listed > LISTED:
            raise Malformed("offsets of multiples", value=listed, limit=LISTED)
        largest = int(BASE[alphabet - 1]) + (1 << int(EXTRA[alphabet - 1])) - 1
        steps = Steps(scale, largest, tuple(reader.take(listed, "offsets of multiples")))
        if not np.isfinite(magnitudes_of(np.arange(max(largest - LISTED, 1), largest + 1), steps)).all():
            raise NonFinite("largest value of multiples", value=scale)
        body = reader.take(reader.varint("length of multiples' symbols"), "symbols of multiples")
        low = reader.take(reader.varint("length of multiples' low bits"), "low bits of multiples")
        symbols = _symbols(values, columns, counts)
        if not affordable(symbols, len(body) + len(low)):
            raise Malformed("symbols of multiples", value=symbols, limit="131072 and 64 a byte")
        return MultiplesPart(values, columns, counts, listed_and_signs & 15, alphabet, steps, body, low)


MULTIPLES = Multiples()


def magnitudes_of(levels: NDArray[np.signedinteger], steps: Steps) -> Vector:
    """What levels from 0 to `MOST` stand for: float32 of the same shape, integer times scale rounded once."""
    half = STEP // 2
    listed = np.full(LISTED + 1, half)
    listed[1 : 1 + len(steps.offsets)] = steps.offsets
    integers = levels * STEP - half + listed[np.minimum(levels, LISTED)]
    # At most 98303 * 128 + 191 < 2**24: exact in float32 before the one multiplication.
    with np.errstate(over="ignore"):
        magnitudes: Vector = integers.astype(np.float32) * np.float32(steps.scale)
    return magnitudes


def _symbols(values: int, columns: int, counts: tuple[int, int] | list[int]) -> int:
    """Values, and rows and columns that have classes."""
    lengths = values // columns, columns
    return values + sum(n for n, count in zip(lengths, counts, strict=True) if count > 1)


def _axes(magnitudes: Magnitudes, tokens: NDArray[np.uint8], alphabet: int) -> tuple[Codes, Codes]:
    """Classes of rows and of columns, or one class where several make no fewer bits."""
    ways = [
        [np.zeros(length, np.uint8)]
        + ([_classed(magnitudes.mean(axis=1 - axis))] if 1 < length <= most_members(magnitudes.size) else [])
        for axis, length in enumerate(magnitudes.shape)
    ]
    pairs = [(r, c) for r in ways[0] for c in ways[1]]
    return min(pairs, key=lambda pair: _bits(tokens, alphabet, *pair)) if len(pairs) > 1 else pairs[0]


def _classed(means: NDArray[np.float64]) -> Codes:
    octaves = _OCTAVE * np.log2(np.maximum(means, 1e-9))
    top = float(octaves.max())
    classes = np.clip(np.rint(octaves - top) + CLASSES - 1, 0, CLASSES - 1).astype(np.uint8)
    lowest: Codes = classes - classes.min()
    return lowest


def _bits(tokens: NDArray[np.uint8], alphabet: int, rows: Codes, columns: Codes) -> float:
    """What classes and tokens cost, about."""
    bits = sum(entropy_bits(axis) + 8 * float(axis.max(initial=0)) for axis in (rows, columns))
    contexts = int(rows.max(initial=0)) + int(columns.max(initial=0)) + 1
    index = np.add.outer(rows, columns).astype(np.int64) * alphabet + tokens
    counts = np.bincount(index.ravel(), minlength=contexts * alphabet).reshape(contexts, alphabet)
    sums = counts.sum(axis=1, keepdims=True)
    bits -= float((counts * np.log2(np.maximum(counts, 1) / np.maximum(sums, 1))).sum())
    learning = np.maximum(np.count_nonzero(counts, axis=1) - 1, 0) * np.log2(sums[:, 0] + 1) / 2
    return bits + float(learning.sum())
