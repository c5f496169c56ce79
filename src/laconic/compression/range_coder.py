"""A range coder: symbols of known frequencies to the one shortest byte string, symbol after symbol.

The bytes are a fraction, most significant byte first, and all bytes after the last are 0. A symbol
narrows the interval `[low, low + range)` to the share that its frequency has; the body is the number in
the last interval with the fewest bytes, so a stream costs less than one byte more than its symbols
(Martin, "Range encoding", 1979). Integers of at most 49 bits; about a quarter of a microsecond a symbol,
which suits short streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from laconic.compression.bits import Codes
from laconic.errors import Malformed

if TYPE_CHECKING:  # imports numba
    from laconic.compression.native.streams import NativeModel

PRECISION = 14
"""Frequencies of a table sum to `2 ** PRECISION`: a symbol that never came costs 14 bits at most."""

TOTAL = 1 << PRECISION

_FULL = 1 << 48
_LEAST = 1 << 32


def encode(starts: Sequence[int], frequencies: Sequence[int]) -> bytes:
    """The bytes of symbols that own the slots `[start, start + frequency)` of 16384."""
    low, span = 0, _FULL
    words: list[int] = []
    for start, frequency in zip(starts, frequencies, strict=True):
        share = span >> PRECISION
        low += share * start
        span = share * frequency
        if span < _LEAST:
            words.append(low >> 32)
            low = (low & _LEAST - 1) << 16
            span <<= 16
    for shift in range(48, -8, -8):
        last = (low + (1 << shift) - 1 >> shift) << shift
        if last < low + span:
            break
    words += [last >> 32, last >> 16 & 0xFFFF, last & 0xFFFF]
    # A word may have overflowed by one bit, which belongs to the word before it.
    carry = 0
    for i in range(len(words) - 1, -1, -1):
        word = words[i] + carry
        words[i], carry = word & 0xFFFF, word >> 16
    return b"".join([w.to_bytes(2, "big") for w in words]).rstrip(b"\0")


@dataclass(slots=True)
class RangeDecoder:
    """The inverse of `encode`, run by run."""

    data: memoryview
    _range: int = field(init=False, default=_FULL)
    _code: int = field(init=False)
    _read: int = field(init=False, default=6)
    _words: list[int] = field(init=False)

    def __post_init__(self) -> None:
        plain = bytes(self.data)
        if plain and not plain[-1]:
            raise Malformed("last byte of coded symbols", value=0, limit="1 to 255")
        plain += bytes(6 + len(plain) % 2)
        words = np.frombuffer(plain, ">u2").tolist()
        self._code = words[0] << 32 | words[1] << 16 | words[2]
        self._words = words

    def decode(
        self, tables: Mapping[int, SlotTable], contexts: Sequence[int] | None, count: int
    ) -> bytearray:
        """The next `count` symbols; `contexts` says for each which of `tables`, None that all are of table 0.

        Raises `Malformed` for a number outside the interval.
        """
        span, code, at, words = self._range, self._code, self._read >> 1, self._words
        end = len(words)
        out = bytearray(count)
        by_slot, starts, frequencies = tables[0] if contexts is None and count else _EMPTY
        for i in range(count):
            if contexts is not None:
                by_slot, starts, frequencies = tables[contexts[i]]
            share = span >> 14
            slot = code // share
            if slot > 16383:
                raise Malformed("coded symbol", value=slot, limit=16383)
            out[i] = symbol = by_slot[slot]
            code -= share * starts[symbol]
            span = share * frequencies[symbol]
            if span < 4294967296:
                span <<= 16
                code = code << 16 | (words[at] if at < end else 0)
                at += 1
        self._range, self._code, self._read = span, code, 2 * at
        return out

    def decode_natively(self, model: NativeModel, begin: int, out: Codes) -> None:
        """The symbols of a stream from `begin` on, into `out`. Raises `Malformed` as `decode` does."""
        words = np.array(self._words, np.uint16)
        state = self._range, self._code, self._read >> 1
        self._range, self._code, at, slot = model.decode_range(words, state, begin, out)
        if slot >= 0:
            raise Malformed("coded symbol", value=slot, limit=TOTAL - 1)
        self._read = 2 * at

    def finish(self) -> None:
        """Check that the bytes are those that `encode` makes, no others. Raises `Malformed`."""
        size = len(self.data)
        if size > self._read:
            raise Malformed("length of coded symbols", value=size, limit=self._read)
        unit = 1 << 8 * (self._read - size)
        if size and (self._code >= unit or self._code + (256 - self.data[-1]) * unit < self._range):
            raise Malformed("end of coded symbols", value=self._code, limit="the shortest number")


SlotTable = tuple[bytes, list[int], list[int]]
"""Symbol by slot (16384 bytes), starts and frequencies by symbol."""

_EMPTY: SlotTable = (b"", [], [])


def slot_table(starts: list[int], frequencies: list[int]) -> SlotTable:
    """What `RangeDecoder` decodes with."""
    return b"".join([bytes((s,)) * f for s, f in enumerate(frequencies)]), starts, frequencies
