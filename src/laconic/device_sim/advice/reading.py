"""Reads a user's examples: a file for each device in a folder, or one file that is to be divided."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laconic.config import opened
from laconic.device_sim.datasets.npz import numbers
from laconic.edge_sdk.data.csv_file import CsvFile
from laconic.edge_sdk.data.signature import Field, Signature
from laconic.edge_sdk.data.snapshot import Snapshot
from laconic.errors import ConfigError, DataError
from laconic.runtime import Manifest

KINDS: Final = (".npz", ".csv")
_MOST_FILES: Final = 1000
_CSV_BYTES: Final = 2**28


@dataclass(frozen=True)
class Given:
    """All that a user has: samples on axis 0 of `x` and `y`.

    `owner`: int64 `(samples,)`, the number of the file in `names` that a sample is of.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    owner: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """Which column of a CSV file is learnt; `classes` are its words, if it has any."""

    column: str | None = None
    classes: tuple[str, ...] = ()


def read(path: Path, labels: Labels, manifest: Manifest | None) -> Given:
    """The examples of a file, or of a folder with a file for each device, in the order of their names.

    `.npz` has arrays `x` and `y`; `.csv` a first row that names its columns, of which one is the label and
    all others are features, in their order. `manifest`: of the model, which says what shape CSV's values
    take; None: a built-in model, which takes them as they come. Raises `ConfigError` or `DataError`.
    """
    files = _files(path)
    if any(f.suffix == ".csv" for f in files) and labels.column is None:
        raise ConfigError("--label", value=None, limit="the column that is learnt, for CSV files")
    tables = [f for f in files if f.suffix == ".csv"]
    classes = labels.classes or _words(tables, labels.column)
    features = _features(tables, labels.column)
    parts = [
        numbers(f) if f.suffix == ".npz" else _table(f, features, labels.column or "", classes, manifest)
        for f in files
    ]
    _alike(files, parts)
    xs, ys = zip(*parts, strict=True)
    sizes = [len(y) for y in ys]
    return Given(
        np.concatenate(xs),
        np.concatenate(ys),
        np.repeat(np.arange(len(files)), sizes),
        tuple(f.stem for f in files),
    )


def _files(path: Path) -> list[Path]:
    try:
        if not path.exists():
            raise ConfigError(f"there is no {path.absolute()}", limit="a folder or a file with examples")
        found = sorted(f for f in path.iterdir() if f.suffix in KINDS) if path.is_dir() else [path]
    except OSError as e:
        raise ConfigError(f"cannot read {path} ({e.strerror})", limit="a folder or a file") from e
    if not found or found[0].suffix not in KINDS:
        raise ConfigError(f"examples in {path}", value="none", limit=" or ".join(KINDS))
    if len(found) > _MOST_FILES:
        raise ConfigError(f"files of examples in {path}", value=len(found), limit=_MOST_FILES)
    return found


def _features(files: Sequence[Path], label: str | None) -> list[str]:
    """The columns that are features, in the order of the first file, whatever that of others is."""
    found: list[str] = []
    for path in files:
        columns = _columns(path)
        if len(set(columns)) < len(columns):
            raise DataError(f"columns of {path}", value=columns, limit="each name once")
        names = [c for c in columns if c != label]
        if not names:
            raise DataError(f"columns of {path} beside {label}", value=0, limit="1 or more")
        found = found or names
        if set(names) != set(found):
            raise DataError(f"columns of {path}", value=names, limit=f"those of {files[0]}: {found}")
    return found


def _table(
    path: Path, features: Sequence[str], label: str, classes: Sequence[str], manifest: Manifest | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    if manifest is None:
        kind = np.dtype(np.int64 if classes else np.float32)
        signature = Signature(
            (Field("x", np.dtype(np.float32), (len(features),)),), (Field("y", kind, (), len(classes)),)
        )
    else:
        signature = Signature.of(manifest)
        if len(signature.inputs) != 1 or len(signature.targets) != 1:
            raise ConfigError(
                "inputs and targets of the model",
                value=[f.name for f in signature.fields],
                limit="one of each",
            )
    source = CsvFile(path, features, label, classes or None, max_bytes=_CSV_BYTES).bind(signature)
    snapshot: Snapshot = source.snapshot()
    return _only(snapshot.x), _only(snapshot.y)


def _only(named: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    (array,) = named.values()
    return np.asarray(array)


def _words(files: Sequence[Path], label: str | None) -> tuple[str, ...]:
    """The different labels of CSV files, in order; none if one of them is a number with a fraction."""
    found: set[str] = set()
    for path in files:
        columns = _columns(path)
        if label not in columns:
            raise DataError(f"columns of {path}", value=label, limit=columns)
        place = columns.index(label)
        # A row at a time: its cells take ten times what they take in the file.
        mine = {row[place].strip() for row in islice(_rows(path), 1, None) if len(row) > place}
        if "" in mine:
            raise DataError(f"{label} in {path}", value="an empty cell", limit="a label in each row")
        found |= mine
    numbers = [n for n in map(_number, found) if n is not None]
    if len(numbers) < len(found):
        return tuple(sorted(found))
    if not all(map(isfinite, numbers)):
        raise DataError(f"numbers in {label}", value="NaN or infinity", limit="finite, or words among them")
    if any(n != round(n) for n in numbers):
        return ()
    return tuple(sorted(found, key=float))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _columns(path: Path) -> list[str]:
    return next(_rows(path), [])


def _rows(path: Path) -> Iterator[list[str]]:
    with (
        opened(path, "file of examples", limit_bytes=_CSV_BYTES) as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="") as file,
    ):
        try:
            yield from csv.reader(file)
        except csv.Error as e:
            raise DataError(
                f"cannot read examples from {path} ({e})", limit="CSV with a first row of names"
            ) from e


def _alike(files: Sequence[Path], parts: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Raises `DataError` for a file without samples, or with others in form than the first one's."""
    forms = [(x.shape[1:], x.dtype.kind, y.shape[1:], y.dtype.kind) for x, y in parts]
    for path, form, (_, y) in zip(files, forms, parts, strict=True):
        if form != forms[0]:
            raise DataError(f"shape and kind of x and y in {path}", value=form, limit=forms[0])
        if not len(y):
            raise DataError(f"examples in {path}", value=0, limit="1 or more")
