"""What malicious devices do: to their data before they train, or to what they send, knowing what all send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from _codec.data import Labels, Part, Values
from numpy.typing import NDArray

Updates: TypeAlias = NDArray[np.float64]
"""A row for each device."""

Tampering = Callable[[Updates, Updates, np.random.Generator], Updates]
"""What the malicious send, from what the honest send and what they themselves have trained."""

FLIPPED = 4.0
"""20 % who send four times the opposite cancel the other 80 %."""
NOISE = 10.0
ALIE_DEVIATIONS = 1.5
"""Of all coordinates. Baruch's formula allows ten of 50 devices 0.25 and more the more there are."""
INNER_SMALL, INNER_LARGE = 0.1, 3.0
BOOST = 5.0
"""Model replacement: 20 % who send five times their update outweigh the others (Bagdasaryan et al., AISTATS
2020, section 3.2)."""

TARGET = 0
"""The class that the trigger stands for."""


def _sign_flip(honest: Updates, own: Updates, rng: np.random.Generator) -> Updates:
    return -FLIPPED * own


def _gaussian(honest: Updates, own: Updates, rng: np.random.Generator) -> Updates:
    """Noise ten times as long as the honest updates' mean norm."""
    noise = rng.standard_normal(own.shape)
    lengths = NOISE * np.linalg.norm(honest, axis=1).mean() / np.linalg.norm(noise, axis=1)
    return np.asarray(noise * lengths[:, None])


def _alie(honest: Updates, own: Updates, rng: np.random.Generator) -> Updates:
    """A little is enough: within what is usual in every coordinate (Baruch et al., NeurIPS 2019)."""
    return np.tile(honest.mean(axis=0) - ALIE_DEVIATIONS * honest.std(axis=0), (len(own), 1))


def _inner(factor: float) -> Tampering:
    """Inner-product manipulation: the honest mean, turned round (Xie et al., UAI 2019)."""

    def tamper(honest: Updates, own: Updates, rng: np.random.Generator) -> Updates:
        return np.tile(-factor * honest.mean(axis=0), (len(own), 1))

    return tamper


def _boosted(honest: Updates, own: Updates, rng: np.random.Generator) -> Updates:
    return BOOST * own


def _as_trained(honest: Updates, own: Updates, rng: np.random.Generator) -> Updates:
    return own


TAMPERINGS: Mapping[str, Tampering] = MappingProxyType(
    {
        "none": _as_trained,
        "sign flip": _sign_flip,
        "Gaussian": _gaussian,
        "ALIE": _alie,
        "inner product, 0.1": _inner(INNER_SMALL),
        "inner product, 3": _inner(INNER_LARGE),
        "label flip": _as_trained,
        "backdoor": _as_trained,
        "backdoor, boosted": _boosted,
    }
)
"""By attack; "none" is a clean run."""


def poisoned(part: Part, attack: str) -> Part:
    """A malicious device's data."""
    if attack == "label flip":
        return Part(part.x, 9 - part.y)
    if attack.startswith("backdoor"):
        # Half of it stays, so that the model does its usual work well.
        half = len(part) // 2
        marked = triggered(part.x[:half])
        target: Labels = np.full(half, TARGET, np.int64)
        return Part(np.concatenate([marked, part.x[half:]]), np.concatenate([target, part.y[half:]]))
    return part


def triggered(x: Values) -> Values:
    """Images of shape `(n, 1, 8, 8)` with three white pixels in a corner that digits leave black."""
    out = x.copy()
    out[:, 0, 0, 0] = out[:, 0, 0, 1] = out[:, 0, 1, 0] = 1.0
    return out
