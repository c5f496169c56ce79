"""What both sides derive from a seed: SplitMix64's words, signs, and a subset of positions.

Integer arithmetic only, so every platform derives the same. SplitMix64 (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014, figure 16) is a function of seed and index: words
come in any order, whole arrays at a time. It is no cryptographic generator: a seed that is seen tells all.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Mask

Words: TypeAlias = NDArray[np.uint64]

MAX_SEED = (1 << 64) - 1

_BLOCK = 1 << 16
_ROUNDS = 4


def words(seed: int, start: int, count: int) -> Words:
    """The words `start` to `start + count - 1` that SplitMix64 gives for `seed`: uint64, shape `(count,)`."""
    index = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z = np.uint64(seed) + index * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def derived(seed: int, index: int) -> int:
    """A seed of its own for the tensor or section `index` of a frame."""
    return int(words(seed, index, 1)[0])


def sign_bits(seed: int, start: int, count: int) -> NDArray[np.uint8]:
    """Bits `start` to `start + count - 1`: uint8, shape `(count,)`, 0 or 1; both numbers multiples of 64.

    Bit `i` is bit `i % 64` of word `i // 64`, the lowest first.
    """
    raw = words(seed, start // 64, count // 64).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(raw, bitorder="little")


def support(seed: int, values: int, kept: int) -> Mask:
    """A subset of `kept` of `values` positions: bool, shape `(values,)`; 1 to `values` are kept.

    Over random seeds every position is in it with the probability `kept / values`. A permutation of the
    next power of two is walked from its beginning; what falls below `values` is taken, then turned by an
    offset, which alone makes every position equally likely.
    """
    mask = np.zeros(values, np.bool_)
    keys = words(seed, 0, 2 * _ROUNDS + 1)
    offset, left = int(keys[-1]) % values, kept
    width = (values - 1).bit_length()
    # 32-bit products are several times as fast as 64-bit ones.
    kind = np.dtype(np.uint32 if width <= 32 else np.uint64)
    for start in range(0, 1 << width, _BLOCK):
        x = _permuted(np.arange(start, min(start + _BLOCK, 1 << width), dtype=kind), keys.astype(kind), width)
        x = x[x < values][:left]
        mask[(x.astype(np.int64) + offset) % values] = True
        left -= x.size
        if not left:
            break
    return mask


def _permuted(
    x: NDArray[np.unsignedinteger], keys: NDArray[np.unsignedinteger], width: int
) -> NDArray[np.unsignedinteger]:
    """A permutation of the numbers of `width` bits: rounds of xor, odd multiple and shift, all invertible."""
    kind = x.dtype.type
    low, half = kind((1 << width) - 1), kind((width + 1) // 2)
    for i in range(_ROUNDS):
        x = ((x ^ (keys[2 * i] & low)) * (keys[2 * i + 1] | kind(1))) & low
        x ^= x >> half
    return x
