"""What both sides of a grid know of its symbols before the first one comes.

A block without structure keeps its values anywhere: its gaps have a geometric distribution, whose mean
follows from how many it keeps. Levels fall off about geometrically too, and of many values the largest level
is known; a sign class is a range of shares. Streams that begin there cost hardly more than their entropy:
grids of less than a thousand values need 2 to 5 % fewer bytes for gaps, levels and signs each.
"""

from __future__ import annotations

from functools import lru_cache

from laconic.compression.transforms.grid.gaps import CONTEXTS, SINGLE

_ONE = 1 << 16

_BEYOND = (7282, 17873, 25206, 30583, 40933, 43264, 45248, 46957, 48444, 49749, 50904, 51933)
"""The chance, of 65536, that a shifted gap is longer than a given one that it reaches, by density.

With `C = (density + 4.5) / 4` for the mean of a gap and one, shifted: `1 - 1 / C` for the first four, whose
blocks are not shifted, and `exp(-1 / C)`, the limit of long gaps, for the others."""

_GAP_WEIGHT = 1 << 19
"""How strongly gaps hold to their prior: the fewest bytes on real updates and on structureless ones."""

_ROOTS = (65536, 60097, 55109, 50535, 46341, 42495, 38968, 35734)
"""65536 times the powers of the eighth root of one half."""

_LEVEL_WEIGHT = 1 << 13
_SLOWEST, _STEEPEST = 1, 40
"""Levels fall by 1 to 40 eighths of a bit from one to the next."""

SIGN_SHARES = {
    1: (32,),
    2: (13, 51),
    3: (3, 32, 61),
    5: (1, 11, 32, 53, 63),
    9: (1, 4, 11, 20, 32, 44, 53, 60, 63),
}
"""By how many sign classes there are: of 64 values of each class, how many are expected to be negative."""


@lru_cache(maxsize=84)
def gap_prior(alphabet: int) -> tuple[int, ...]:
    """Weights of the symbols of gaps, density after density."""
    weights: list[int] = []
    for beyond in _BEYOND:
        left = _GAP_WEIGHT
        for symbol in range(alphabet):
            if symbol >= SINGLE and symbol % 2 == 0:
                # The buckets of an octave are twice as long as those before.
                beyond = beyond * beyond // _ONE
            after = left * beyond // _ONE
            weights.append(max(left - after, 1))
            left = after
    assert len(weights) == CONTEXTS * alphabet
    return tuple(weights)


def level_prior(rungs: int, kept: int, contexts_count: int) -> tuple[int, ...]:
    """Weights of `rungs` (at least 2) levels of `kept` values, of which about one or two have the highest."""
    eighths = min(max(8 * max(kept.bit_length() - 3, 1) // (rungs - 1), _SLOWEST), _STEEPEST)
    ratio = _ROOTS[eighths % 8] >> eighths // 8
    weights, weight = [], _LEVEL_WEIGHT
    for _ in range(rungs):
        weights.append(max(weight, 1))
        weight = weight * ratio // _ONE
    return tuple(weights) * contexts_count


def sign_prior(classes: int) -> tuple[int, ...]:
    """Weights of plus and minus, class after class."""
    return tuple(w for minus in SIGN_SHARES[classes] for w in (64 * (64 - minus), 64 * minus))
