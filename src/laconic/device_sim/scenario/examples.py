"""What devices learn from: the files, held-out data, and its division among devices."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laconic.config import read_file
from laconic.device_sim.scenario.settings import DataSection
from laconic.errors import ConfigError
from laconic.runtime import read_arrays

Array = NDArray[Any]

_MNIST: Final = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""SHA-256 of the four files of MNIST, as gzip."""
_MNIST_BYTES: Final = 1 << 26


@dataclass(frozen=True)
class Part:
    """Labelled examples, samples on axis 0 of both."""

    x: Array
    y: Array

    def at(self, where: Sequence[int] | Array) -> Part:
        """Some of them."""
        return Part(self.x[where], self.y[where])


@dataclass(frozen=True)
class Examples:
    """A part for each device, and what nobody trains on."""

    devices: list[Part]
    held_out: Part


def examples_of(s: DataSection, devices: int, seed: int, folder: Path) -> Examples:
    """The examples of a scenario. Raises `ConfigError` for files that cannot be used, or too few examples."""
    rng = np.random.default_rng([seed, 1])
    if s.source == "mnist":
        train, held_out = _mnist(folder / (s.path or ""))
        train = train.at(rng.permutation(len(train.y)))
    else:
        every = _digits() if s.source == "digits" else Part(*read_arrays(folder / (s.path or "")))
        order = rng.permutation(len(every.y))
        kept = max(1, round(s.held_out * len(order)))
        held_out, train = every.at(np.sort(order[:kept])), every.at(order[kept:])
    if s.samples:
        train = train.at(np.arange(min(len(train.y), s.samples * devices)))
    if len(train.y) < devices:
        raise ConfigError(
            "examples to divide among devices",
            value=len(train.y),
            limit=f"at least one for each of {devices}",
        )
    return Examples([train.at(np.sort(where)) for where in divided(s, train.y, devices, rng)], held_out)


def divided(s: DataSection, labels: Array, devices: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Which examples each device has: each example is one device's, and each device has at least one.

    uniform: dealt out at random. own_class: `own_class` of a class's examples go to the devices whose class
    it is (device number modulo classes), the rest is dealt out at random. dirichlet: of each class, devices
    have shares drawn from a symmetric Dirichlet distribution with `alpha` (Hsu, Qi, Brown, "Measuring the
    Effects of Non-Identical Data Distribution", 2019, has it by device). Raises `ConfigError` for labels that
    are no classes where classes are needed.
    """
    if s.division == "uniform":
        return _fed([list(part) for part in np.array_split(rng.permutation(len(labels)), devices)])
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError("data.division", value=s.division, limit="uniform, where y are no classes")
    dealt: list[list[int]] = [[] for _ in range(devices)]
    classes = np.unique(labels)
    for number, c in enumerate(classes):
        mine = rng.permutation(np.flatnonzero(labels == c))
        if s.division == "dirichlet":
            shares = rng.dirichlet(np.full(devices, s.alpha))
            parts = np.split(mine, np.round(np.cumsum(shares)[:-1] * len(mine)).astype(np.int64))
            for device, part in enumerate(parts):
                dealt[device] += part.tolist()
            continue
        owners = range(number, devices, len(classes))
        own = round(s.own_class * len(mine)) if owners else 0
        for device, part in zip(owners, np.array_split(mine[:own], max(1, len(owners))), strict=False):
            dealt[device] += part.tolist()
        for device, part in enumerate(np.array_split(mine[own:], devices)):
            # From another device on for each class, or the first would have all remainders.
            dealt[(device + number) % devices] += part.tolist()
    return _fed(dealt)


def _fed(dealt: list[list[int]]) -> list[NDArray[np.int64]]:
    """Whoever has nothing is given one example by whoever has most."""
    for part in dealt:
        if not part:
            part.append(max(dealt, key=len).pop())
    return [np.array(part, np.int64) for part in dealt]


def _digits() -> Part:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as e:
        raise ConfigError("scikit-learn is not installed", remedy="pip install 'laconic[sim]'") from e
    digits = load_digits()
    return Part((digits.images / 16).astype(np.float32)[:, None], digits.target.astype(np.int64))


def _mnist(folder: Path) -> tuple[Part, Part]:
    """MNIST's training and test examples: `x` float32 `(samples, 1, 28, 28)` from 0 to 1."""
    found = dict(zip(_MNIST, _idx(folder), strict=True))
    train_x, train_y, test_x, test_y = (
        found[name].reshape(-1, 1, 28, 28).astype(np.float32) / 255
        if "images" in name
        else found[name].astype(np.int64)
        for name in _MNIST
    )
    return Part(train_x, train_y), Part(test_x, test_y)


def _idx(folder: Path) -> Iterator[NDArray[np.uint8]]:
    for name, digest in _MNIST.items():
        raw = read_file(folder / f"{name}.gz", "file of MNIST", limit_bytes=_MNIST_BYTES)
        if (is_ := hashlib.sha256(raw).hexdigest()) != digest:
            raise ConfigError(f"SHA-256 of {folder / name}.gz", value=is_, limit=digest)
        # What has the right digest has the right length, too.
        yield np.frombuffer(gzip.decompress(raw), np.uint8)[16 if "images" in name else 8 :]
