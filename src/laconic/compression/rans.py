"""Range asymmetric numeral systems: symbols of known frequencies to bytes and back, in interleaved lanes.

A state is an integer below 2**32, a word has 16 bits, frequencies of a symbol sum to 2**14. Symbols come in *steps*
of at most one symbol a lane; NumPy codes a step at once, a single lane is coded with plain integers. The coder
writes backwards, so that the decoder reads words in the order in which it decodes (Duda, "Asymmetric numeral
systems", arXiv 1311.2540; Giesen, "Interleaved entropy coders", arXiv 1402.3392).

What makes short streams short: one lane starts from the state 0, and the decoder stops reading words when there are
none left, so nothing is spent on a start or an end; its last state is written in as few bytes as hold it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.errors import Malformed

PRECISION = 14
"""Frequencies of a table sum to `2 ** PRECISION`: a symbol that never came costs 14 bits and 1/16384 of the rest."""

TOTAL = 1 << PRECISION

MAX_LANES_LOG2 = 12

BARE_BYTES = 512
"""Up to this many bytes there is one lane, and no byte that says so."""

_LOW = 1 << 16
_HIGH_SHIFT = np.uint32(32 - PRECISION)
_MASK = np.uint32(TOTAL - 1)

Steps: TypeAlias = Sequence[tuple[int, int]]
"""Bounds of runs of symbols that share their tables; within a run symbol `i` belongs to lane `i % lanes`."""

Frequencies: TypeAlias = NDArray[np.uint16]


def encode(starts: Frequencies, frequencies: Frequencies, runs: Steps, lanes: int) -> bytes:
    """The bytes of symbols that own the slots `[start, start + frequency)` of 16384.

    `starts`, `frequencies`: uint16, shape `(count,)`; `runs`: consecutive bounds over all of them; `lanes`: a power of two
    up to 4096, a wish: where several lanes would make less than `BARE_BYTES` there is one.
    """
    if lanes > 1:
        body = _encode_lanes(starts, frequencies, runs, lanes)
        if body is not None and len(body) >= BARE_BYTES:
            return bytes([lanes.bit_length() - 1]) + body
    body = _encode_one(starts, frequencies)
    return body if len(body) <= BARE_BYTES else b"\0" + body


def _encode_one(starts: Frequencies, frequencies: Frequencies) -> bytes:
    state = 0
    words: list[int] = []
    for start, frequency in zip(reversed(starts.tolist()), reversed(frequencies.tolist()), strict=True):
        if state >> 18 >= frequency:
            words.append(state & 0xFFFF)
            state >>= 16
        state += state // frequency * (TOTAL - frequency) + start
    head = state.to_bytes((state.bit_length() + 7) // 8, "little")
    return head + np.array(words[::-1], "<u2").tobytes()


def _encode_lanes(starts: Frequencies, frequencies: Frequencies, runs: Steps, lanes: int) -> bytes | None:
    """None if a lane is too short to fill a state."""
    steps = [(a, min(a + lanes, stop)) for begin, stop in runs for a in range(begin, stop, lanes)]
    frequency = frequencies.astype(np.uint32)
    start = starts.astype(np.uint32)
    state = np.full(lanes, _LOW, np.uint32)
    words: list[NDArray[np.uint16]] = []
    for a, b in reversed(steps):
        f, x = frequency[a:b], state[: b - a]
        over = (x >> _HIGH_SHIFT) >= f
        words.append(x.astype(np.uint16)[over])
        x >>= over.astype(np.uint32) << np.uint32(4)
        x += x // f * (np.uint32(TOTAL) - f) + start[a:b]
    return _pack_states(state) + np.concatenate(words[::-1]).astype("<u2").tobytes()


def _pack_states(states: NDArray[np.uint32]) -> bytes:
    """A nibble a state, how many bits it has above 17, low nibble first; then the bits of all below their top ones."""
    whole = at = 0
    nibbles = 0
    for i, state in enumerate(states.tolist()):
        size = state.bit_length() - 1
        nibbles |= (size - 16) << 4 * i
        whole |= (state ^ 1 << size) << at
        at += size
    return nibbles.to_bytes(len(states) // 2, "little") + whole.to_bytes((at + 7) // 8, "little")


def _unpack_states(data: memoryview, lanes: int) -> tuple[NDArray[np.uint32], int]:
    """The states, and how many bytes they fill. Raises `Malformed`."""
    if len(data) < lanes // 2:
        raise Malformed("states of coded symbols", value=len(data), limit=lanes // 2)
    raw = np.frombuffer(data[: lanes // 2], np.uint8)
    sizes = np.stack([raw & 15, raw >> 4], 1).ravel().astype(np.int64) + 16
    bits = int(sizes.sum())
    end = lanes // 2 + (bits + 7) // 8
    if len(data) < end:
        raise Malformed("states of coded symbols", value=len(data), limit=end)
    plain = np.unpackbits(np.frombuffer(data[lanes // 2 : end], np.uint8), bitorder="little")
    if plain[bits:].any():
        raise Malformed("padding of the states of coded symbols")
    ends = np.cumsum(sizes)
    columns = np.arange(32)
    picked = np.append(plain, np.zeros(32, np.uint8))[(ends - sizes)[:, None] + columns]
    picked[columns[None, :] >= sizes[:, None]] = 0
    picked[np.arange(lanes), sizes] = 1
    return np.packbits(picked, axis=1, bitorder="little").view("<u4")[:, 0].astype(np.uint32), end


@dataclass(frozen=True, slots=True)
class Table:
    """What a run is decoded with: frequencies and starts of each context, shape `(contexts, alphabet)`."""

    frequencies: NDArray[np.int64]
    starts: NDArray[np.int64]


@dataclass(slots=True)
class Decoder:
    """The inverse of `encode`, run by run: the tables of a run may depend on all symbols before it."""

    data: memoryview
    lanes: int = field(init=False, default=1)
    _state: int = field(init=False, default=0)
    _states: NDArray[np.uint32] = field(init=False)
    _words: NDArray[np.uint16] = field(init=False)
    _plain: list[int] = field(init=False)
    _at: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        data = self.data
        if len(data) > BARE_BYTES:
            exponent = data[0]
            if exponent > MAX_LANES_LOG2:
                raise Malformed("lanes of coded symbols", value=exponent, limit=MAX_LANES_LOG2)
            self.lanes = 1 << exponent
            data = data[1:]
        if self.lanes == 1:
            size = len(data) if len(data) < 5 else 4 - len(data) % 2
            self._state = int.from_bytes(data[:size], "little")
            if size and not data[size - 1]:
                raise Malformed("state of coded symbols", value=self._state, limit="its shortest form")
        else:
            self._states, size = _unpack_states(data, self.lanes)
        if (len(data) - size) % 2:
            raise Malformed("length of coded symbols", value=len(data))
        self._words = np.frombuffer(data[size:], "<u2").astype(np.uint16)
        self._plain = self._words.tolist() if self.lanes == 1 else []

    def run(self, table: Table, contexts: NDArray[np.uint8] | None, out: NDArray[np.uint8]) -> None:
        """Decode one run into `out`; `contexts`: uint8 of the same shape, or None for context 0.

        Raises `Malformed` if the words end where several lanes need some.
        """
        if self.lanes == 1:
            out[:] = np.frombuffer(self._run_one(table, contexts, out.size), np.uint8)
        else:
            self._run_lanes(table, contexts, out)

    def _run_one(self, table: Table, contexts: NDArray[np.uint8] | None, count: int) -> bytearray:
        state, at, words = self._state, self._at, self._plain
        end = len(words)
        symbols = bytearray(count)
        used = [0] if contexts is None else np.flatnonzero(np.bincount(contexts)).tolist()
        tables = {
            c: (_by_slot(table.frequencies[c]), table.frequencies[c].tolist(), table.starts[c].tolist())
            for c in used
        }
        by_slot, frequencies, starts = tables[used[0]] if used else (b"", [], [])
        which: Iterator[int] | None = (
            iter(contexts.tolist()) if len(used) > 1 and contexts is not None else None
        )
        for i in range(count):
            if which is not None:
                by_slot, frequencies, starts = tables[next(which)]
            slot = state & 16383
            symbol = by_slot[slot]
            symbols[i] = symbol
            state = frequencies[symbol] * (state >> 14) + slot - starts[symbol]
            if state < 65536 and at < end:
                state = state << 16 | words[at]
                at += 1
        self._state, self._at = state, at
        return symbols

    def _run_lanes(self, table: Table, contexts: NDArray[np.uint8] | None, out: NDArray[np.uint8]) -> None:
        alphabet = table.frequencies.shape[1]
        frequencies = table.frequencies.ravel().astype(np.uint32)
        starts = table.starts.ravel().astype(np.uint32)
        if contexts is not None and table.frequencies.shape[0] > 1:
            by_slot = np.repeat(
                np.tile(np.arange(alphabet, dtype=np.uint8), table.frequencies.shape[0]),
                table.frequencies.ravel(),
            )
            rows = contexts.astype(np.int64)
        else:
            by_slot = np.repeat(np.arange(alphabet, dtype=np.uint8), table.frequencies[0])
            rows = None
        words, at = self._words, self._at
        for a in range(0, out.size, self.lanes):
            b = min(a + self.lanes, out.size)
            x = self._states[: b - a]
            slot = x & _MASK
            if rows is None:
                symbol = by_slot.take(slot)
                index = symbol
            else:
                row = rows[a:b]
                symbol = by_slot.take((row << PRECISION) + slot)
                index = row * alphabet + symbol
            out[a:b] = symbol
            x >>= np.uint32(PRECISION)
            x *= frequencies.take(index)
            slot -= starts.take(index)
            x += slot
            low = np.flatnonzero(x < _LOW)
            if low.size and at < words.size:
                if at + low.size > words.size:
                    raise Malformed("words of coded symbols", value=words.size, limit=at + low.size)
                x[low] = (x[low] << np.uint32(16)) | words[at : at + low.size]
                at += low.size
        self._at = at

    def finish(self) -> None:
        """Check that all words were read and every lane is back at a start. Raises `Malformed`."""
        if self._at != self._words.size:
            raise Malformed("words of coded symbols", value=self._words.size, limit=self._at)
        if self.lanes == 1:
            if self._state:
                raise Malformed("end of coded symbols", value=self._state, limit=0)
        elif ((self._states & (self._states - np.uint32(1))) != 0).any() or not (
            (self._states >= 1) & (self._states <= _LOW)
        ).all():
            raise Malformed("end of coded symbols", limit="powers of two up to 65536")


def _by_slot(frequencies: NDArray[np.int64]) -> bytes:
    return b"".join([bytes((s,)) * f for s, f in enumerate(frequencies.tolist())])
