"""UCI HAR: what 30 people did, by the sensors of a phone at their waist (Anguita et al., ESANN 2013).

Windows of 128 readings at 50 Hz, half of each in the next one: total acceleration (g) and angular velocity
(rad/s), x, y, z of both; walking, upstairs, downstairs, sitting, standing, laying.
"""

from __future__ import annotations

import io
import ssl
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laconic.device_sim.datasets import archive
from laconic.device_sim.datasets.fetching import Published, by_hand, fetch
from laconic.device_sim.datasets.labelled import Array, Dataset, Labelled
from laconic.device_sim.datasets.npy import decode_npy
from laconic.device_sim.datasets.reading import found, read_plain
from laconic.errors import ConfigError

ARCHIVE: Final = Published(
    "human+activity+recognition+using+smartphones.zip",
    "c00b803081a5c797cd5e4b83700a9810b38d53d9d84e01917e090e1fdbc81031",
    61_005_872,
    "https://archive.ics.uci.edu/static/public/240/human+activity+recognition+using+smartphones.zip",
)
ACTIVITIES: Final = ("walking", "upstairs", "downstairs", "sitting", "standing", "laying")
TEST_PEOPLE: Final = (2, 4, 9, 10, 12, 13, 18, 20, 24)
"""Whom the data set's authors have set apart."""
FOLDER: Final = "UCI HAR Dataset"
SIGNALS: Final = tuple(f"{kind}_{axis}" for kind in ("total_acc", "body_gyro") for axis in "xyz")
ARRAYS: Final = ("total_acc_body_gyro_f4.npy", "labels.npz")
"""The same as arrays: float32 `(windows, 128, 6)`, and `y` from 0 with `subject` for each window."""
_INNER: Final = "UCI HAR Dataset.zip"
_READINGS: Final = 128
_PEOPLE: Final = 30
_LIMIT_BYTES: Final = 1 << 26


def load(folder: Path, *, held_out: tuple[int, ...] = TEST_PEOPLE, download: bool = False) -> Dataset:
    """`x`: float32 `(windows, 6, 128)`, `y`: int64 from 0 in the order of `ACTIVITIES`; groups are people.

    By person, and for each in the order of the files. The people of `held_out` are nobody's to learn from.
    Reads the files as published, or the same as arrays (`ARRAYS`).

    Raises `ConfigError` for files that lack or are no such data, and people that there are not.
    """
    if download and not files(folder):
        fetch_lacking(folder)
    x, y, person = _arrays(folder) if found(folder, ARRAYS[0]) else _published(folder)
    apart = np.isin(person, held_out)
    if apart.all() or not apart.any():
        raise ConfigError("people held out of UCI HAR", value=held_out, limit="some of those that there are")
    order = np.argsort(person, kind="stable")
    mine, theirs = order[~apart[order]], order[apart[order]]
    return Dataset(Labelled(x[mine], y[mine], person[mine]), Labelled(x, y).gathered(theirs))


def files(folder: Path) -> list[Path]:
    """The files in a folder that `load` reads; none if one of them lacks."""
    for names in (ARRAYS, [n for part in ("train", "test") for n in _names(part)]):
        paths = [path for name in names if (path := found(folder, name)) is not None]
        if len(paths) == len(names):
            return paths
    return []


def _names(part: str) -> list[str]:
    signals = [f"{FOLDER}/{part}/Inertial Signals/{signal}_{part}.txt" for signal in SIGNALS]
    return [*signals, f"{FOLDER}/{part}/y_{part}.txt", f"{FOLDER}/{part}/subject_{part}.txt"]


def _published(folder: Path) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    parts = [_part(folder, part) for part in ("train", "test")]
    x, y, person = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return _checked(x, y - 1, person, str(folder / FOLDER))


def _part(folder: Path, part: str) -> tuple[Array, Array, Array]:
    *signals, y, person = (_table(folder, name) for name in _names(part))
    shapes = {s.shape for s in signals}
    if shapes != {(len(y), _READINGS)} or y.shape != (len(y), 1) or person.shape != y.shape:
        raise ConfigError(
            f"shapes of {part} of UCI HAR", value=[*shapes, y.shape, person.shape], limit="as one"
        )
    return np.stack(signals, axis=1), y[:, 0], person[:, 0]


def _table(folder: Path, name: str) -> NDArray[np.float32]:
    text = read_plain(folder, name, limit_bytes=_LIMIT_BYTES, remedy=by_hand(ARCHIVE, folder))
    try:
        with warnings.catch_warnings():
            # numpy warns of a file without lines, whose shape is refused then.
            warnings.simplefilter("ignore", UserWarning)
            return np.loadtxt(io.BytesIO(text), np.float32, comments=None, ndmin=2, encoding="ascii")
    except ValueError as e:
        raise ConfigError(
            f"{folder / name} is no table of numbers ({e})", remedy=by_hand(ARCHIVE, folder)
        ) from e


def _arrays(folder: Path) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    raw = read_plain(folder, ARRAYS[0], limit_bytes=_LIMIT_BYTES, remedy=by_hand(ARCHIVE, folder))
    windows = decode_npy(raw, str(folder / ARRAYS[0]))
    labels = read_plain(folder, ARRAYS[1], limit_bytes=_LIMIT_BYTES, remedy=by_hand(ARCHIVE, folder))
    y, person = (
        decode_npy(
            archive.member(labels, f"{n}.npy", limit_bytes=_LIMIT_BYTES), f"{n} in {folder / ARRAYS[1]}"
        )
        for n in ("y", "subject")
    )
    if windows.shape[1:] != (_READINGS, len(SIGNALS)):
        raise ConfigError(
            f"shape of {ARRAYS[0]}", value=windows.shape, limit=("windows", _READINGS, len(SIGNALS))
        )
    return _checked(windows.transpose(0, 2, 1), y, person, str(folder))


def _checked(
    x: Array, y: Array, person: Array, where: str
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """The arrays in dtypes of their own: as many windows each, finite, of activities and people there are."""
    if y.shape != (len(x),) or person.shape != (len(x),) or not len(x):
        raise ConfigError(
            f"shapes in {where}", value=(x.shape, y.shape, person.shape), limit="as many windows"
        )
    for what, values, least, most in (("y", y, 0, len(ACTIVITIES) - 1), ("people", person, 1, _PEOPLE)):
        if not ((values >= least) & (values <= most) & (values % 1 == 0)).all():
            raise ConfigError(f"{what} in {where}", value=(values.min(), values.max()), limit=(least, most))
    if not np.isfinite(x).all():
        raise ConfigError(f"readings in {where}", limit="finite")
    return np.ascontiguousarray(x, np.float32), y.astype(np.int64), person.astype(np.int64)


def fetch_lacking(
    folder: Path, source: Published = ARCHIVE, *, context: ssl.SSLContext | None = None
) -> None:
    """Fetch the archive; what `load` reads is in another one in it. Raises as `fetch` does."""
    path = fetch(source, folder, context=context)
    inner = archive.member(path, _INNER, limit_bytes=_LIMIT_BYTES)
    for part in ("train", "test"):
        for name in _names(part):
            archive.put(folder, {name: archive.member(inner, name, limit_bytes=_LIMIT_BYTES)})
    path.unlink(missing_ok=True)
