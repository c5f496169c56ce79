"""How often symbols come, as both sides of a stream learn it: counts by context, integers throughout."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Codes
from laconic.compression.range_coder import TOTAL

Frequencies: TypeAlias = NDArray[np.int64]
"""Shape `(contexts, alphabet)`, each at least 1, 16384 in each row."""

SEEN = 32
"""What a symbol that came weighs."""

_BACKGROUND = 24
"""What the background weighs without a prior, a symbol of the alphabet: three quarters of one that came."""

_STRENGTH = 128
"""With a prior the background weighs its sum, on average over the contexts, over this: who knows the
frequencies beforehand holds to them, however many symbols have come."""

_PLAIN = 16
"""Up to this many counts plain integers are faster than NumPy (4 against 15 microseconds for 2 of them)."""

_NARROW = 32
"""Up to this alphabet the background is smoothed by one product with a matrix."""


class Model:
    """Counts of symbols by context, and the frequencies that follow from them."""

    def __init__(self, alphabet: int, contexts_count: int, prior: tuple[int, ...] | None = None) -> None:
        self.counts = np.zeros((contexts_count, alphabet), np.int64)
        self.prior = _falling(alphabet) if prior is None else _rows(prior, alphabet)
        self._prior_sums = self.prior.sum(axis=1, keepdims=True)
        strength = _BACKGROUND * alphabet if prior is None else sum(prior) // contexts_count // _STRENGTH
        self.background = strength
        self._rows = np.arange(contexts_count)
        self.ceiling = 1024 + 64 * alphabet
        self._learnt = 0

    def learn(self, symbols: Codes, contexts: Codes | None) -> None:
        """Count a run; where a context's counts exceed a ceiling, halve them: recent ones weigh more."""
        index = symbols if contexts is None else contexts.astype(np.int64) * self.counts.shape[1] + symbols
        self.counts += np.bincount(index, minlength=self.counts.size).reshape(self.counts.shape)
        self._learnt += symbols.size
        if self._learnt > self.ceiling:
            self.counts[self.counts.sum(axis=1) > self.ceiling] >>= 1

    def frequencies(self) -> Frequencies:
        """What the next run is coded with.

        The weight of a symbol is its count and a *background*: the counts of its neighbours, smoothed twice
        with the kernel (1, 2, 1), and a prior. Symbols here are magnitudes, whose neighbours come about as
        often: streams of 20 to 500 symbols need a quarter less of what they cost beyond their entropy than
        with equal weights.
        """
        if self.counts.size <= _PLAIN:
            priors = self.prior.tolist()
            both = zip(self.counts.tolist(), priors * (len(self.counts) // len(priors)), strict=True)
            return np.array([_plain(row, prior, self.background) for row, prior in both], np.int64)
        alphabet = self.counts.shape[1]
        seen = self.counts * SEEN
        near = seen @ _kernel(alphabet) if alphabet <= _NARROW else _smoothed(_smoothed(seen))
        near += self.prior
        near *= self.background
        # The kernel keeps 4 times the sum, and 4 times again.
        near //= seen.sum(axis=1, keepdims=True) * 16 + self._prior_sums
        near += seen
        near += 1
        scaled: Frequencies = near * (TOTAL - alphabet)
        scaled //= near.sum(axis=1, keepdims=True)
        scaled += 1
        # What the divisions leave goes to the first of the heaviest symbols.
        scaled[self._rows, near.argmax(axis=1)] += TOTAL - scaled.sum(axis=1)
        return scaled


def first_slots(frequencies: Frequencies) -> NDArray[np.int64]:
    """The sum of the frequencies below each symbol."""
    starts: NDArray[np.int64] = frequencies.cumsum(axis=1)
    starts -= frequencies
    return starts


@lru_cache(maxsize=256)
def _falling(alphabet: int) -> NDArray[np.int64]:
    """Where nothing is known: falling by a quarter from symbol to symbol, smoothed; `(1, alphabet)`."""
    weights = [32]
    while len(weights) < alphabet:
        weights.append(max(weights[-1] * 3 // 4, 2))
    return _smoothed(_smoothed(np.array([weights], np.int64)))


@lru_cache(maxsize=256)
def _rows(prior: tuple[int, ...], alphabet: int) -> NDArray[np.int64]:
    return np.array(prior, np.int64).reshape(-1, alphabet)


@lru_cache(maxsize=_NARROW)
def _kernel(alphabet: int) -> NDArray[np.int64]:
    return _smoothed(_smoothed(np.eye(alphabet, dtype=np.int64)))


def _smoothed(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Twice each weight and its neighbours; beyond its ends a row goes on with its first and last weight."""
    out = 2 * weights
    out[:, 1:] += weights[:, :-1]
    out[:, :-1] += weights[:, 1:]
    out[:, 0] += weights[:, 0]
    out[:, -1] += weights[:, -1]
    return out


def _plain(counts: list[int], prior: list[int], background: int) -> list[int]:
    """The frequencies of one context, as `Model.frequencies` has them."""
    alphabet = len(counts)
    seen = [SEEN * n for n in counts]
    near = seen
    for _ in range(2):
        near = [a + b + b + c for a, b, c in zip([near[0], *near], near, [*near[1:], near[-1]], strict=False)]
    near = [a + b for a, b in zip(near, prior, strict=True)]
    whole = sum(near)
    weights = [a + b * background // whole + 1 for a, b in zip(seen, near, strict=True)]
    whole, spread = sum(weights), TOTAL - alphabet
    out = [w * spread // whole + 1 for w in weights]
    out[weights.index(max(weights))] += TOTAL - sum(out)
    return out
