"""Random numbers without state: the number of a key and a count is always the same.

A virtual device draws what it needs when it needs it, in any order, and keeps nothing: thirty days of
charging are one key. The mixing function is SplitMix64's (Steele, Lea, Flood: "Fast splittable pseudorandom
number generators", OOPSLA 2014, figure 17).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def key(*parts: int) -> int:
    """A key of 64 bits from a seed and whatever tells one use from another."""
    state = 0
    for part in parts:
        state = _mix((state + _GOLDEN + part) & _MASK)
    return state


def uniform(of: int, count: int) -> float:
    """The `count`-th number of a key, from 0 to below 1; `count` is at least -1."""
    return (_mix((of + (count + 2) * _GOLDEN) & _MASK) >> 11) * 2.0**-53


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def keys(seed: int, stream: int, devices: npt.NDArray[Any]) -> Keys:
    """`key(seed, stream, device)` of many devices at once."""
    state = np.uint64((key(seed, stream) + _GOLDEN) & _MASK)
    return _mix_all(devices.astype(np.uint64) + state)


def uniforms(of: Keys, counts: npt.NDArray[Any]) -> Floats:
    """`uniform` of many keys and counts at once."""
    steps = (counts + 2).astype(np.uint64) * np.uint64(_GOLDEN)
    return (_mix_all(of + steps) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix_all(x: Keys) -> Keys:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
