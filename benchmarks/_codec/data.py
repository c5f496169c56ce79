"""Three data sets as the federated runs use them, and how they are dealt out to devices."""

from __future__ import annotations

import gzip
import lzma
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Values = NDArray[np.float32]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]

SHARED = Path(__file__).parents[2] / (os.environ.get("LACONIC_DATA") or "../shared/data")
"""Where MNIST and UCI HAR lie; the digits come with scikit-learn."""

MNIST_TRAIN, MNIST_TEST = 6_000, 2_000
"""Images that are used, of 60,000 and 10,000: a run stays short."""

HAR_TEST_PEOPLE = (2, 4, 9, 10, 12, 13, 18, 20, 24)
"""The official test set of UCI HAR."""


@dataclass(frozen=True)
class Part:
    """Labelled samples: `x` float32 `(samples, ...)`, `y` int64 `(samples,)`."""

    x: Values
    y: Labels

    def __len__(self) -> int:
        return len(self.y)

    def at(self, indices: Indices) -> Part:
        """The samples at `indices`, in that order."""
        return Part(self.x[indices], self.y[indices])


@dataclass(frozen=True)
class DataSet:
    """What devices train on, and what nobody trains on."""

    train: Part
    test: Part
    classes: int


def digits() -> DataSet:
    """1,797 digits of 8x8 grey values from 0 to 1; every fifth, in a fixed order, is held out."""
    raw = load_digits()
    order = np.random.default_rng(0).permutation(len(raw.target))
    x: Values = (raw.images / 16).astype(np.float32)[order, None]
    y: Labels = raw.target.astype(np.int64)[order]
    held = len(y) // 5
    return DataSet(Part(x[held:], y[held:]), Part(x[:held], y[:held]), 10)


def mnist() -> DataSet:
    """The first images of MNIST: float32 `(n, 1, 28, 28)`, from 0 to 1."""

    def part(name: str, count: int) -> Part:
        images = _idx(SHARED / "mnist" / f"{name}-images-idx3-ubyte.gz", 16)[: count * 784]
        labels = _idx(SHARED / "mnist" / f"{name}-labels-idx1-ubyte.gz", 8)[:count]
        x: Values = images.reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255)
        return Part(x, labels.astype(np.int64))

    return DataSet(part("train", MNIST_TRAIN), part("t10k", MNIST_TEST), 10)


def har() -> DataSet:
    """UCI HAR: acceleration and rotation rate, float32 `(n, 6, 128)`, each channel of unit variance.

    Split by person, as published: nobody whose windows are in the test set is in the training set.
    """
    folder = SHARED / "uci-har"
    with lzma.open(folder / "total_acc_body_gyro_f4.npy.xz") as file:
        windows = np.load(file)
    with np.load(folder / "labels.npz") as labels:
        y, people = labels["y"].astype(np.int64), labels["subject"]
    held = np.isin(people, HAR_TEST_PEOPLE)
    mean, deviation = windows[~held].mean((0, 1)), windows[~held].std((0, 1))
    scaled = ((windows - mean) / deviation).transpose(0, 2, 1)
    x: Values = np.ascontiguousarray(scaled, np.float32)
    return DataSet(Part(x[~held], y[~held]), Part(x[held], y[held]), 6)


def deal(labels: Labels, devices: int, skew: float, seed: int) -> list[Indices]:
    """Which samples each device has: as many for each, `skew` of them of its own class.

    A device's own class is its number modulo the number of classes; the rest is drawn from what is left over,
    of any class. 0 means evenly at random. A class that is too small for its owners makes their share of it
    smaller. The order within a device is random.
    """
    rng = np.random.default_rng([seed, 1])
    classes = int(labels.max()) + 1
    each = len(labels) // devices
    own = round(skew * each)
    waiting = [rng.permutation(np.flatnonzero(labels == c)) for c in range(classes)]
    dealt: list[Indices] = []
    for device in range(devices):
        label = device % classes
        owners = len(range(label, devices, classes))
        count = min(own, int(np.count_nonzero(labels == label)) // owners)
        dealt.append(waiting[label][:count])
        waiting[label] = waiting[label][count:]
    spare = rng.permutation(np.concatenate(waiting))
    # With all of a device's data of one class, a class that runs short is not filled up with others.
    lacking = [0 if skew == 1 else each - len(d) for d in dealt]
    cuts = np.cumsum(lacking)
    filled = [np.concatenate([d, s]) for d, s in zip(dealt, np.split(spare, cuts)[:-1], strict=True)]
    return [rng.permutation(f) for f in filled]


def deal_dirichlet(labels: Labels, devices: int, alpha: float, seed: int) -> list[Indices]:
    """Which samples each device has: as many for each, with shares of the classes drawn from a Dirichlet.

    Hsu et al., arXiv 1909.06335, section 3.1: each device's shares are drawn with concentration `alpha`, its
    samples from them; a class that has run out is left to the others.
    """
    rng = np.random.default_rng([seed, 1])
    classes = int(labels.max()) + 1
    waiting = [list(rng.permutation(np.flatnonzero(labels == c))) for c in range(classes)]
    shares = rng.dirichlet([alpha] * classes, devices)
    dealt: list[list[int]] = [[] for _ in range(devices)]
    # In turns, so that no device is left with what the others did not want.
    for _ in range(len(labels) // devices):
        for device in rng.permutation(devices):
            left = np.array([bool(w) for w in waiting])
            odds = np.where(left, shares[device] + 1e-9, 0)
            chosen = int(rng.choice(classes, p=odds / odds.sum()))
            dealt[device].append(int(waiting[chosen].pop()))
    return [rng.permutation(np.array(d, np.int64)) for d in dealt]


def _idx(path: Path, header: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)[header:]
