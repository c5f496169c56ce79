"""MNIST: 70,000 grey images of handwritten digits (LeCun, Bottou, Bengio, Haffner, Proc. IEEE 1998)."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from laconic.config import read_file
from laconic.device_sim.datasets.fetching import Published, by_hand, fetch
from laconic.device_sim.datasets.idx import decode_idx
from laconic.device_sim.datasets.labelled import Array, Dataset, Labelled
from laconic.errors import ConfigError

_ADDRESS: Final = "https://storage.googleapis.com/cvdf-datasets/mnist"
FILES: Final = tuple(
    Published(f"{name}.gz", sha256, size, f"{_ADDRESS}/{name}.gz")
    for name, sha256, size in (
        (
            "train-images-idx3-ubyte",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            9912422,
        ),
        (
            "train-labels-idx1-ubyte",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            28881,
        ),
        (
            "t10k-images-idx3-ubyte",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            1648877,
        ),
        ("t10k-labels-idx1-ubyte", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542),
    )
)
"""The four files as published; the digests are given by many."""
_LIMIT_BYTES: Final = 1 << 26
_WHITE: Final = 255.0


def load(folder: Path, *, download: bool = False) -> Dataset:
    """MNIST's training and test images: `x` float32 `(samples, 1, 28, 28)` from 0 to 1, `y` int64 0 to 9.

    Raises `ConfigError` for a file that lacks or has another SHA-256.
    """
    if download:
        fetch_lacking(folder)
    # hashlib and zlib let go of the interpreter: the four files take as long as the largest.
    with ThreadPoolExecutor(2) as pool:
        train_x, train_y, test_x, test_y = pool.map(lambda file: _array(file, folder), FILES)
    train = Labelled(train_x[:, None], train_y.astype(np.int64), divisor=_WHITE)
    return Dataset(train, Labelled(test_x[:, None], test_y.astype(np.int64), divisor=_WHITE).whole())


def fetch_lacking(
    folder: Path, files: Sequence[Published] = FILES, *, context: ssl.SSLContext | None = None
) -> None:
    """Fetch those of the files that the folder lacks. Raises as `fetch` does."""
    for file in files:
        if not os.path.exists(folder / file.name):
            fetch(file, folder, context=context)


def _array(file: Published, folder: Path) -> Array:
    path = folder / file.name
    if not os.path.exists(path):  # Path's own raises for a name that is too long.
        raise ConfigError(f"no {file.name} in {folder.resolve()}", remedy=by_hand(file, folder))
    raw = read_file(path, "file of MNIST", limit_bytes=_LIMIT_BYTES)
    if (digest := hashlib.sha256(raw).hexdigest()) != file.sha256:
        raise ConfigError(f"SHA-256 of {path}", value=digest, limit=file.sha256, remedy=by_hand(file, folder))
    return decode_idx(raw, str(path), limit_bytes=_LIMIT_BYTES)
