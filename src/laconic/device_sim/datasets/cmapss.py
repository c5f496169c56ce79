"""C-MAPSS: simulated turbofan engines run to failure (Saxena, Goebel, Simon, Eklund, PHM 2008).

A row a flight: engine, cycle, three operational settings, 21 sensors. Engines of `train` run until they
fail; those of `test` end some time before, and `RUL` has how many cycles they had left.
"""

from __future__ import annotations

import hashlib
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laconic.device_sim.datasets import archive
from laconic.device_sim.datasets.fetching import Published, by_hand, fetch
from laconic.device_sim.datasets.labelled import Dataset, Labelled
from laconic.device_sim.datasets.reading import found, read_plain
from laconic.device_sim.datasets.windows import Scale, scale_of, windows_of
from laconic.errors import ConfigError

ARCHIVE: Final = Published(
    "CMAPSSData.zip",
    "74bef434a34db25c7bf72e668ea4cd52afe5f2cf8e44367c55a82bfd91a5a34f",
    12_425_978,
    "https://data.nasa.gov/docs/legacy/CMAPSSData.zip",
)
SHA256: Final = MappingProxyType(
    {
        "train_FD001.txt": "963b5e22825b34d8b21c69e1aeb4af3e647050eb672ee8834ba4b5d91d2de0f8",
        "test_FD001.txt": "3cda7109ce17bafb5443f2ac926cfcf88154b941b8c4cf95eb55d1ddd6f52851",
        "RUL_FD001.txt": "a19c8ec94931949d0485bdc35118206e9c81c4547b422efb9cf86f4ceddbceca",
        "train_FD002.txt": "dac6c4dbc4e7c1bdeb5747da3d313d05c395bb99801b44a002b26a2ba13d788f",
        "test_FD002.txt": "de7b5bf7e998a985c378488480528b7c02cff1406a46740def362dda8d9b4e02",
        "RUL_FD002.txt": "c851dd96a6ea6998d3c4a8f834d3c8013aa90e93a6ed950dc826ad0655b2906b",
        "train_FD003.txt": "2abbe9968cc5e8eb091980f51b20f62bb4127336d3482cb52071d53bf23329e2",
        "test_FD003.txt": "299babd63c8d987cef079c4a425429f33b3a34797d803bbe2ad48c29dbd0d790",
        "RUL_FD003.txt": "df1e0566306b174a2de41c67a3e7a51877889598b78643fc3e5685259091b7cb",
        "train_FD004.txt": "27ef6160b6a1dcb2613a88de9c239f763b223f02cdc41dc5cdedc5dc189b6218",
        "test_FD004.txt": "1dc675fff0624bac10786927c6715b37d1297657137400d2b1a3138d777a3ba5",
        "RUL_FD004.txt": "196b836b85a95ac7fdbbf29c5fdf1657382eafa445644d114ffaaf50dc2975e1",
    }
)
"""Of the files in the archive, by name, as text."""
SUBSETS: Final = ("FD001", "FD002", "FD003", "FD004")
CHANNELS: Final = tuple([f"setting{i}" for i in range(1, 4)] + [f"s{i}" for i in range(1, 22)])
"""The columns behind engine and cycle, by name."""
CAP_CYCLES: Final = 125.0
_LIMIT_BYTES: Final = 1 << 25
_FEWEST_VALUES: Final = 3


@dataclass(frozen=True)
class Engines:
    """Engines' flights, by engine, then by cycle.

    `values`: float64 `(flights, 24)`, in the order of `CHANNELS`. `starts`: int64 `(engines + 1)`, the row at
    which each engine begins, and the number of rows. `left`: cycles left after each engine's last flight.
    """

    values: NDArray[np.float64]
    starts: NDArray[np.int64]
    left: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, engine: int) -> NDArray[np.float64]:
        """The flights of an engine, counted from 0: `(cycles, 24)`."""
        return self.values[self.starts[engine] : self.starts[engine + 1]]

    def remaining(self) -> NDArray[np.int64]:
        """Cycles left after each flight."""
        cycles = np.diff(self.starts)
        last = np.repeat(self.starts[1:] - 1, cycles)
        return last - np.arange(len(self.values)) + np.repeat(self.left, cycles)


def load(
    folder: Path,
    *,
    subset: str = "FD001",
    window: int = 30,
    stride: int = 1,
    cap_cycles: float = CAP_CYCLES,
    unit_cycles: float = 1.0,
    channels: tuple[str, ...] = (),
    download: bool = False,
) -> Dataset:
    """Windows over the last `window` cycles, and the cycles that an engine has left at their end.

    `x`: float32 `(windows, channels, window)`, each channel less its mean and over its standard deviation in
    the training file; `y`: float32 `(windows,)`, cycles left, at most `cap_cycles` (a healthy engine does not
    show its age; piecewise linear as in Heimes, PHM 2008), over `unit_cycles`; groups are engines. Training
    has every `stride`-th window, counted from the failure; held out is the last window of each test engine.
    An engine with fewer cycles is taken to have stood still before. `channels`: names from `CHANNELS`; none
    means the sensors that take at least three values in the training file.

    Raises `ConfigError` for files that lack or have another SHA-256, and channels that there are not.
    """
    train, test = (
        read_engines(folder, subset, "train", download=download),
        read_engines(folder, subset, "test"),
    )
    scale = scale_of_training(train, channels)
    x, rows, engine = windows_of(train.values, train.starts, scale, window, stride=stride)
    y = (np.minimum(train.remaining()[rows], cap_cycles) / unit_cycles).astype(np.float32)
    held_x, rows, _ = windows_of(test.values, test.starts, scale, window, last_only=True)
    held_y = (np.minimum(test.remaining()[rows], cap_cycles) / unit_cycles).astype(np.float32)
    return Dataset(Labelled(x, y, engine), Labelled(held_x, held_y).whole())


def scale_of_training(train: Engines, channels: tuple[str, ...] = ()) -> Scale:
    """Which channels a model sees, and what makes them of mean 0 and standard deviation 1.

    They come of all training engines at once. A fleet's engines do not know each other's: there the maker
    would publish such constants with the model, as this does. Raises `ConfigError` for unknown channels.
    """
    if unknown := [c for c in channels if c not in CHANNELS]:
        raise ConfigError("channels of C-MAPSS", value=unknown, limit=", ".join(CHANNELS))
    chosen = channels or tuple(
        name
        for i, name in enumerate(CHANNELS)
        if name[:2] != "se" and len(np.unique(train.values[:, i])) >= _FEWEST_VALUES
    )
    return scale_of(train.values, [CHANNELS.index(name) for name in chosen])


def read_engines(folder: Path, subset: str, kind: str, *, download: bool = False) -> Engines:
    """The engines of `train` or `test` of a subset. Raises `ConfigError`."""
    if subset not in SUBSETS:
        raise ConfigError("subset of C-MAPSS", value=subset, limit=", ".join(SUBSETS))
    if download:
        fetch_lacking(folder, subset)
    values, starts = decode(_text(folder, f"{kind}_{subset}.txt"), f"{kind}_{subset}.txt")
    left = np.zeros(len(starts) - 1, np.int64)
    if kind == "test":
        left = decode_left(_text(folder, f"RUL_{subset}.txt"), f"RUL_{subset}.txt", len(left))
    return Engines(values, starts, left)


def fetch_lacking(
    folder: Path, subset: str, source: Published = ARCHIVE, *, context: ssl.SSLContext | None = None
) -> None:
    """Fetch the archive and take out what the folder lacks of a subset. Raises as `fetch` does."""
    names = [f"{kind}_{subset}.txt" for kind in ("train", "test", "RUL")]
    lacking = [name for name in names if found(folder, name) is None]
    if lacking:
        path = fetch(source, folder, context=context)
        archive.put(folder, {n: archive.member(path, n, limit_bytes=_LIMIT_BYTES) for n in lacking})
        path.unlink(missing_ok=True)


def decode(text: bytes, where: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Settings and sensors of a file's flights, and at which row each engine begins (`Engines`).

    Raises `ConfigError` for what is no table of 26 columns of finite numbers, by engine from 1 and cycle
    from 1.
    """
    table = _table(text, where)
    if table.shape[1] != 2 + len(CHANNELS):
        raise ConfigError(f"columns of {where}", value=table.shape[1], limit=2 + len(CHANNELS))
    engine, cycle = table[:, 0], table[:, 1]
    begins = np.flatnonzero(np.diff(engine, prepend=engine[0] - 1))
    since = np.arange(len(table)) - np.repeat(begins, np.diff(begins, append=len(table)))
    in_order = np.array_equal(engine[begins], np.arange(1, len(begins) + 1))
    if not in_order or not np.array_equal(cycle, since + 1):
        raise ConfigError(f"engines and cycles of {where}", limit="each from 1, without gaps")
    return np.ascontiguousarray(table[:, 2:]), np.append(begins, len(table)).astype(np.int64)


def decode_left(text: bytes, where: str, engines: int) -> NDArray[np.int64]:
    """Cycles that each test engine had left. Raises `ConfigError`."""
    table = _table(text, where)
    if table.shape != (engines, 1) or not ((table >= 0) & (table < 2**31) & (table % 1 == 0)).all():
        raise ConfigError(f"lines of {where}", value=table.shape, limit=f"{engines} counts of cycles")
    return table[:, 0].astype(np.int64)


def _text(folder: Path, name: str) -> bytes:
    text = read_plain(folder, name, limit_bytes=_LIMIT_BYTES, remedy=by_hand(ARCHIVE, folder))
    if (digest := hashlib.sha256(text).hexdigest()) != SHA256[name]:
        raise ConfigError(
            f"SHA-256 of {folder / name}", value=digest, limit=SHA256[name], remedy=by_hand(ARCHIVE, folder)
        )
    return text


def _table(text: bytes, where: str) -> NDArray[np.float64]:
    try:
        with warnings.catch_warnings():
            # numpy warns of a file without lines, which is refused below.
            warnings.simplefilter("ignore", UserWarning)
            table = np.loadtxt(text.decode("ascii").splitlines(), np.float64, comments=None, ndmin=2)
    except ValueError as e:
        raise ConfigError(f"{where} is no table of numbers ({e})", remedy="get it again") from e
    if not table.size or not np.isfinite(table).all():
        raise ConfigError(f"numbers in {where}", limit="finite, at least one line")
    return table
