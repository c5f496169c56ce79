"""Streams of the adaptive coder by compiled kernels: what `adaptive` does run by run, in one call each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laconic.compression.bits import Codes
from laconic.compression.frequencies import SEEN, Model
from laconic.compression.native import kernels
from laconic.compression.native.kernels import Bytes, Ints, Rules, Shorts, Words

_NONE = np.empty(0, np.uint8)

Arrays = tuple[Ints, Ints, Ints, Ints, Bytes, Bytes, Ints, Rules]


@dataclass(frozen=True, slots=True)
class NativeModel:
    """What a kernel knows of a stream, before and between calls; see `kernels`."""

    contexts: Codes
    arrays: Arrays

    def modelled(self, symbols: Codes) -> tuple[Shorts, Shorts]:
        """Start and frequency of each symbol under the frequencies of its run."""
        starts, frequencies = np.empty(symbols.size, np.uint16), np.empty(symbols.size, np.uint16)
        kernels.modelled(np.ascontiguousarray(symbols), self.contexts, *self.arrays, starts, frequencies)
        return starts, frequencies

    def decode_lanes(self, words: Shorts, at: int, states: Words, end: int, out: Codes) -> int:
        """The symbols before `end`, from lanes: how many words are read then, or would have to be there."""
        return int(kernels.decode_lanes(words, at, states, self.contexts, *self.arrays, end, out))

    def decode_range(
        self, words: Shorts, state: tuple[int, int, int], begin: int, out: Codes
    ) -> tuple[int, int, int, int]:
        """The symbols from `begin` on, from a number: range, code, words read; -1, or a slot too high."""
        after = np.array(state, np.int64)
        slot = kernels.decode_range(words, after, self.contexts, *self.arrays, begin, out)
        span, code, at = after.tolist()
        return span, code, at, int(slot)


def native_model(model: Model, contexts: Codes | None, runs: tuple[int, int]) -> NativeModel:
    """A model that has learnt nothing yet. `runs`: symbols of the shortest and of the longest run."""
    rows, alphabet = model.counts.shape
    arrays = (
        model.counts,
        np.zeros(rows, np.int64),
        model.prior,
        np.empty((rows, alphabet + 1), np.int64),
        np.empty((rows, 64), np.uint8),
        np.zeros(rows, np.uint8),
        np.empty((2, alphabet), np.int64),
        (*runs, SEEN, model.background, model.ceiling),
    )
    return NativeModel(_NONE if contexts is None else np.ascontiguousarray(contexts), arrays)


def encode_range(starts: Shorts, frequencies: Shorts) -> bytes:
    """As `range_coder.encode`."""
    words = np.empty(starts.size + 3, np.uint32)
    out = np.empty(2 * words.size, np.uint8)
    return out[: kernels.encode_range(starts, frequencies, words, out)].tobytes()


def encode_lanes(
    starts: Shorts, frequencies: Shorts, runs: Sequence[tuple[int, int]], states: Words
) -> Shorts:
    """The words of symbols, whose lanes begin with `states` and leave there what they end with."""
    words = np.empty(starts.size, np.uint16)
    bounds = np.array(runs, np.int64).reshape(-1, 2)
    return words[kernels.encode_lanes(starts, frequencies, bounds, states, words) :]
