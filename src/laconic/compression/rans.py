"""Interleaved rANS: long streams of symbols of known frequencies, a row of lanes in one NumPy step.

A lane's state is below 2**32, a word has 16 bits, frequencies of a table sum to 2**14. Symbol `i` of a
run belongs to lane `i % lanes`. The encoder works from the last symbol to the first, so that the decoder
meets the words in the order of the symbols (Duda, "Asymmetric numeral systems", arXiv 1311.2540; Giesen,
"Interleaved entropy coders", arXiv 1402.3392).

A lane costs about half a byte: the last states are written in as many bits as they have, and the states from
which the encoder starts carry two bytes each of whatever the caller gives it (the end of the stream, coded
otherwise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression import native
from laconic.compression.range_coder import PRECISION, TOTAL
from laconic.errors import Malformed

if TYPE_CHECKING:  # imports numba
    from laconic.compression.native.streams import NativeModel

MAX_LANES_LOG2 = 12

Slots: TypeAlias = NDArray[np.uint16]
"""Starts or frequencies of symbols among the 16384 slots, shape `(count,)`."""

States: TypeAlias = NDArray[np.uint32]

_LOW = 1 << 16
_MASK, _SHIFT, _WORD = np.uint32(TOTAL - 1), np.uint32(PRECISION), np.uint32(16)
_HIGH_SHIFT = np.uint32(32 - PRECISION)


def encode(
    starts: Slots, frequencies: Slots, runs: Sequence[tuple[int, int]], lanes: int, cargo: bytes
) -> bytes:
    """The bytes of symbols that own the slots `[start, start + frequency)`.

    `lanes`: a power of two, 2 to 4096. `runs`: consecutive bounds over all symbols. `cargo`: at most
    `2 * lanes` bytes, which come out at the end of decoding, with zeros after them.
    """
    state = np.frombuffer(cargo.ljust(2 * lanes, b"\0"), "<u2").astype(np.uint32) + np.uint32(_LOW)
    if native.ready(starts.size):
        from laconic.compression.native.streams import encode_lanes

        words = encode_lanes(starts, frequencies, runs, state)
    else:
        words = _encode(starts, frequencies, runs, state)
    return _pack_states(state) + words.astype("<u2").tobytes()


def _encode(starts: Slots, frequencies: Slots, runs: Sequence[tuple[int, int]], states: States) -> Slots:
    """The words of symbols, whose lanes begin with `states` and leave there what they end with."""
    frequency, start, lanes = frequencies.astype(np.uint32), starts.astype(np.uint32), states.size
    steps = [(a, min(a + lanes, stop)) for begin, stop in runs for a in range(begin, stop, lanes)]
    words = [np.empty(0, np.uint16)]
    for a, b in reversed(steps):
        x, f = states[: b - a], frequency[a:b]
        full = (x >> _HIGH_SHIFT) >= f
        words.append(x.astype(np.uint16)[full])
        x >>= full.astype(np.uint32) << np.uint32(4)
        x += x // f * (np.uint32(TOTAL) - f) + start[a:b]
    return np.concatenate(words[::-1])


def _pack_states(states: States) -> bytes:
    """A nibble for each state, its bits above 17, low nibble first; then its bits below the top one."""
    sizes = np.frexp(states.astype(np.float64))[1] - 1
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
        symbols = [bytes((s,)) * f for row in frequencies.tolist() for s, f in enumerate(row)]
        by_slot = np.frombuffer(b"".join(symbols), np.uint8)
        flat_starts = starts.ravel().astype(np.uint32)
        flat_frequencies = frequencies.ravel().astype(np.uint32)
        which = None if contexts is None or rows == 1 else contexts.astype(np.int64)
        words, at = self._words, self._at
        for a in range(0, out.size, self.lanes):
            b = min(a + self.lanes, out.size)
            x = self._states[: b - a]
            slot = x & _MASK
            if which is None:
                out[a:b] = index = by_slot.take(slot)
            else:
                row = which[a:b]
                out[a:b] = symbol = by_slot.take((row << PRECISION) + slot)
                index = row * alphabet + symbol
            x >>= _SHIFT
            x *= flat_frequencies.take(index)
            slot -= flat_starts.take(index)
            x += slot
            low = (x < _LOW).nonzero()[0]
            if low.size:
                word = words[at : at + low.size]
                at += low.size
                if word.size < low.size:
                    raise Malformed("words of coded symbols", value=words.size, limit=at)
                x[low] = (x[low] << _WORD) | word
        self._at = at

    def decode_natively(self, model: NativeModel, end: int, out: NDArray[np.uint8]) -> None:
        """The symbols of a stream before `end`, into `out`. Raises `Malformed` as `decode` does."""
        self._at = model.decode_lanes(self._words, self._at, self._states, end, out)
        if self._at > self._words.size:
            raise Malformed("words of coded symbols", value=self._words.size, limit=self._at)

    def finish(self) -> bytes:
        """The cargo, once all words are known to be read and all lanes back where they began.

        Raises `Malformed`.
        """
        if self._at != self._words.size:
            raise Malformed("words of coded symbols", value=self._words.size, limit=self._at)
        if self._states.max() >> 17:
            raise Malformed(
                "last states of coded symbols", value=int(self._states.max()), limit=(1 << 17) - 1
            )
        return self._states.astype("<u2").tobytes()
