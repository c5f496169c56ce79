"""The handwritten digits that scikit-learn ships, dealt out so that each device has mostly one class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from laconic.errors import ConfigError

CLASSES = 10
Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Labelled images: `x` float32 `(samples, 1, 8, 8)` from 0 to 1, `y` int64 `(samples,)`."""

    x: Images
    y: Labels

    def save(self, path: Path) -> None:
        """Write an `.npz` that coordinator and devices read."""
        np.savez(path, x=self.x, y=self.y)


@dataclass(frozen=True)
class Split:
    """One part for each device, and what nobody trains on."""

    devices: list[Part]
    held_out: Part

    def pooled(self) -> Part:
        """All devices' data in one place."""
        return Part(np.concatenate([d.x for d in self.devices]), np.concatenate([d.y for d in self.devices]))


def split_digits(devices: int, *, skew: float, seed: int, held_out: float = 0.2) -> Split:
    """1,797 digits; `skew` of a device's samples are of its own class (device number modulo 10).

    The rest of its samples are drawn evenly from what is left over. Raises `ConfigError` for more devices
    than there is data for.
    """
    most = 120
    if not 1 <= devices <= most:
        raise ConfigError("--devices", value=devices, limit=f"1 to {most}", remedy="there are 1,797 digits")
    rng = np.random.default_rng(seed)
    digits = load_digits()
    x = (digits.images / 16).astype(np.float32)[:, None]
    y = digits.target.astype(np.int64)
    order = rng.permutation(len(y))
    x, y = x[order], y[order]
    held = round(held_out * len(y))
    rest = Part(x[held:], y[held:])
    by_class = [list(np.flatnonzero(rest.y == c)) for c in range(CLASSES)]
    owners = [[d for d in range(devices) if d % CLASSES == c] for c in range(CLASSES)]
    dealt: list[list[int]] = [[] for _ in range(devices)]
    spare: list[int] = []
    for c in range(CLASSES):
        indices = by_class[c]
        own = round(skew * len(indices)) if owners[c] else 0
        for i, index in enumerate(indices[:own]):
            dealt[owners[c][i % len(owners[c])]].append(int(index))
        spare += map(int, indices[own:])
    rng.shuffle(spare)
    # The rest of each device's data, in proportion, so that its own class stays at `skew` of the whole.
    owned, start = 0, 0
    total = sum(map(len, dealt))
    for own_indices in dealt:
        owned += len(own_indices)
        end = min(len(spare), round(owned * (1 - skew) / skew), round(owned * len(spare) / total))
        own_indices += spare[start:end]
        start = end
    parts = [Part(rest.x[sorted(d)], rest.y[sorted(d)]) for d in dealt]
    return Split(parts, Part(x[:held], y[:held]))
