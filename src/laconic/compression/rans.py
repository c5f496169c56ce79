"""Interleaved rANS: long streams of symbols of known frequencies, a whole row of lanes in one NumPy step.

A lane's state is below 2**32, a word has 16 bits, frequencies of a table sum to 2**14. Symbol `i` of a run belongs
to lane `i % lanes`. The encoder works from the last symbol to the first, so that the decoder meets the words in
the order of the symbols (Duda, "Asymmetric numeral systems", arXiv 1311.2540; Giesen, "Interleaved entropy
coders", arXiv 1402.3392).

A lane costs about one byte, not the six of a plain start and end: the last states are written in as many bits as
they have, and near the end of the stream a lane's first symbols fill its state instead of a word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression.range_coder import PRECISION, TOTAL
from laconic.errors import Malformed

MAX_LANES_LOG2 = 12

Slots: TypeAlias = NDArray[np.uint16]
"""Starts or frequencies of symbols among the 16384 slots, shape `(count,)`."""

States: TypeAlias = NDArray[np.uint32]

_LOW = 1 << 16
_HIGH_SHIFT = np.uint32(32 - PRECISION)
_STARTS = np.uint32(1) << np.arange(17, dtype=np.uint32)
"""States that a lane may start from: the powers of two up to 65536."""


def encode(starts: Slots, frequencies: Slots, runs: Iterable[tuple[int, int]], lanes: int) -> bytes | None:
    """The bytes of symbols that own the slots `[start, start + frequency)`; `lanes` is a power of two, 2 to 4096.

    `runs`: consecutive bounds over all symbols. None if the symbols do not fill a state in every lane.
    """
    frequency, start = frequencies.astype(np.uint32), starts.astype(np.uint32)
    steps = [(a, min(a + lanes, stop)) for begin, stop in runs for a in range(begin, stop, lanes)][::-1]
    state = _first_states(start, frequency, steps, lanes)
    words: list[Slots] = []
    for a, b in steps:
        x = state[: b - a]
        over = _full(x, frequency[a:b])
        if words or over.any():
            words.append(x.astype(np.uint16)[over])
            x >>= over.astype(np.uint32) << np.uint32(4)
        _push(x, start[a:b], frequency[a:b])
    if (state < _LOW).any():
        return None
    stream = np.concatenate(words[::-1]) if words else np.empty(0, np.uint16)
    return _pack_states(state) + stream.astype("<u2").tobytes()


def _full(x: States, frequency: States) -> NDArray[np.bool_]:
    """Where a state must give up a word before it takes the next symbol."""
    return (x >> _HIGH_SHIFT) >= frequency


def _push(x: States, start: States, frequency: States) -> None:
    x += x // frequency * (np.uint32(TOTAL) - frequency) + start


def _first_states(start: States, frequency: States, steps: list[tuple[int, int]], lanes: int) -> States:
    """A start for each lane, so that many symbols are taken before the first word, and none is below 65536 then.

    All lanes give up words from the same step on. Every start is tried for every lane; where one lane has none that
    suits, fewer steps are tried, in the end none, which 65536 always suits.
    """
    x = np.ones(lanes, np.uint32)
    most = 0
    for a, b in steps:
        if _full(x[: b - a], frequency[a:b]).any():
            break
        _push(x[: b - a], start[a:b], frequency[a:b])
        most += 1
    tried = most
    while tried:
        x = np.repeat(_STARTS[:, None], lanes, axis=1)
        fits = np.ones(x.shape, np.bool_)
        for a, b in steps[:tried]:
            fits[:, : b - a] &= ~_full(x[:, : b - a], frequency[a:b])
            _push(x[:, : b - a], start[a:b], frequency[a:b])
        fits &= x >= _LOW
        if fits.any(axis=0).all():
            return _STARTS[fits.argmax(axis=0)]
        tried = tried * 7 // 8
    return np.full(lanes, _LOW, np.uint32)


def _pack_states(states: States) -> bytes:
    """A nibble for each state, its bits above 17, low nibble first; then the bits below each state's top one."""
    sizes = np.log2(states).astype(np.int64)  # exact: the states are integers far below 2**53
    nibbles = (sizes - 16).astype(np.uint8)
    bits = np.unpackbits(states.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    below = bits[np.arange(32) < sizes[:, None]]
    return (nibbles[::2] | nibbles[1::2] << 4).tobytes() + np.packbits(below, bitorder="little").tobytes()


def _unpack_states(data: memoryview, lanes: int) -> tuple[States, int]:
    """The states, and how many bytes they fill. Raises `Malformed`."""
    half = lanes // 2
    if len(data) < half:
        raise Malformed("states of coded symbols", value=len(data), limit=half)
    raw = np.frombuffer(data[:half], np.uint8)
    sizes = np.stack([raw & 15, raw >> 4], axis=1).ravel().astype(np.int64) + 16
    count = int(sizes.sum())
    end = half + (count + 7) // 8
    if len(data) < end:
        raise Malformed("states of coded symbols", value=len(data), limit=end)
    below = np.unpackbits(np.frombuffer(data[half:end], np.uint8), bitorder="little")
    if below[count:].any():
        raise Malformed("padding of the states of coded symbols")
    bits = np.zeros((lanes, 32), np.uint8)
    bits[np.arange(32) < sizes[:, None]] = below[:count]
    bits[np.arange(lanes), sizes] = 1
    return np.packbits(bits, axis=1, bitorder="little").view("<u4")[:, 0].astype(np.uint32), end


@dataclass(slots=True)
class LaneDecoder:
    """The inverse of `encode`, run by run: the tables of a run may depend on all symbols before it."""

    data: memoryview
    lanes: int
    _states: States = field(init=False)
    _words: Slots = field(init=False)
    _at: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._states, size = _unpack_states(self.data, self.lanes)
        if (len(self.data) - size) % 2:
            raise Malformed("length of coded symbols", value=len(self.data), limit="whole words")
        self._words = np.frombuffer(self.data[size:], "<u2")

    def decode(
        self,
        starts: NDArray[np.int64],
        frequencies: NDArray[np.int64],
        contexts: NDArray[np.uint8] | None,
        out: NDArray[np.uint8],
    ) -> None:
        """Decode one run into `out`. `starts`, `frequencies`: shape `(contexts, alphabet)`.

        Raises `Malformed` if the words end where several lanes need some.
        """
        rows, alphabet = frequencies.shape
        symbols = np.tile(np.arange(alphabet, dtype=np.uint8), rows)
        by_slot = np.repeat(symbols, frequencies.ravel())
        flat_starts = starts.ravel().astype(np.uint32)
        flat_frequencies = frequencies.ravel().astype(np.uint32)
        which = None if contexts is None or rows == 1 else contexts.astype(np.int64)
        words, at = self._words, self._at
        for a in range(0, out.size, self.lanes):
            b = min(a + self.lanes, out.size)
            x = self._states[: b - a]
            slot = x & np.uint32(TOTAL - 1)
            if which is None:
                out[a:b] = index = by_slot.take(slot)
            else:
                row = which[a:b]
                out[a:b] = symbol = by_slot.take((row << PRECISION) + slot)
                index = row * alphabet + symbol
            x >>= np.uint32(PRECISION)
            x *= flat_frequencies.take(index)
            slot -= flat_starts.take(index)
            x += slot
            low = np.flatnonzero(x < _LOW)
            if low.size and at < words.size:
                if at + low.size > words.size:
                    raise Malformed("words of coded symbols", value=words.size, limit=at + low.size)
                x[low] = (x[low] << np.uint32(16)) | words[at : at + low.size]
                at += low.size
        self._at = at

    def finish(self) -> None:
        """Check that all words were read and that every lane is back at a start. Raises `Malformed`."""
        if self._at != self._words.size:
            raise Malformed("words of coded symbols", value=self._words.size, limit=self._at)
        if not np.isin(self._states, _STARTS).all():
            raise Malformed("end of coded symbols", limit="powers of two up to 65536")
