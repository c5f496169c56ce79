"""A run's files: one JSON for people, tables as JSON lines, and as Parquet where pyarrow is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from laconic.config import read_file
from laconic.device_sim.scenario.results import (
    BaselineRow,
    ClassRow,
    DeviceRow,
    LossRow,
    Result,
    RoundRow,
    ScoreRow,
    StepRow,
)
from laconic.device_sim.scenario.settings import ScenarioSettings
from laconic.errors import ConfigError, DataError

RUN: Final = "run.json"
_TABLES: Final[dict[str, type[msgspec.Struct]]] = {
    "rounds": RoundRow,
    "classes": ClassRow,
    "devices": DeviceRow,
    "steps": StepRow,
    "baselines": BaselineRow,
    "losses": LossRow,
    "scores": ScoreRow,
}
"""The rows of `rounds` are in the JSON too."""

_MOST: Final = 1e40
"""More than a float32 can be, and a run comes to nothing near it: what adds rows up, or draws them, stays
finite."""


def write(result: Result, folder: Path) -> None:
    """Write a run's files; `run.json` is the last, so that where it is the others are whole.

    The same result gives the same bytes. Raises `ConfigError` for a folder that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN).unlink(missing_ok=True)
        for name in _TABLES:
            rows = getattr(result, name)
            put(folder / f"{name}.jsonl", b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
            _parquet(folder / f"{name}.parquet", rows)
        short = msgspec.structs.replace(result, **{name: [] for name in _TABLES if name != "rounds"})
        table = {k: v for k, v in msgspec.to_builtins(short).items() if k == "rounds" or k not in _TABLES}
        put(folder / RUN, msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n")
    except OSError as e:
        raise ConfigError(f"cannot write to {folder} ({e.strerror})", remedy="choose --output") from e


def make(folder: Path) -> None:
    """A folder for a run's files. Raises `ConfigError` where none can be made, or nothing be written."""
    probe = folder / f"{RUN}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise ConfigError(f"cannot write to {folder} ({e.strerror})", remedy="choose --output") from e
    except ValueError as e:
        raise ConfigError("path of the results", value=str(folder), limit="no zero bytes") from e


def read(folder: Path) -> Result:
    """A run from its files. Raises `ConfigError` if there are none, `DataError` for what cannot be read."""
    try:
        result = msgspec.json.decode(read_file(folder / RUN, "run"), type=Result)
        # What an earlier release did not know has its default.
        settings = msgspec.convert(result.settings, ScenarioSettings)
        found: dict[str, Any] = {"settings": msgspec.json.decode(msgspec.json.encode(settings))}
        for name, kind in _TABLES.items():
            if name != "rounds":
                lines = read_file(folder / f"{name}.jsonl", "table of a run").splitlines()
                found[name] = [msgspec.json.decode(line, type=kind) for line in lines]
            _check(found.get(name, result.rounds), name, folder)
        _check([result.totals], "totals", folder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DataError(f"run in {folder} cannot be read ({e})", remedy="run it again") from e
    return msgspec.structs.replace(result, **found)


def _check(rows: Sequence[msgspec.Struct], table: str, folder: Path) -> None:
    for number, row in enumerate(rows, 1):
        for name, value in zip(row.__struct_fields__, msgspec.structs.astuple(row), strict=True):
            if isinstance(value, (int, float)) and abs(value) > _MOST:
                what = f"{name} in row {number} of {table} in {folder}"
                raise DataError(what, value=value, limit=_MOST, remedy="run it again")


def digest_in(folder: Path) -> str | None:
    """Of the run whose files are in a folder; None without a whole run."""
    try:
        return msgspec.json.decode((folder / RUN).read_bytes(), type=_Digest).digest
    except (OSError, ValueError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Digest(msgspec.Struct, frozen=True):
    digest: str


def put(path: Path, content: bytes) -> None:
    """Write a file so that it is whole whenever it is there. Raises `OSError`."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(content)
    os.replace(beside, path)


def _parquet(path: Path, rows: Sequence[msgspec.Struct]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        # What an earlier run left would be of that one.
        path.unlink(missing_ok=True)
        return
    tables = [msgspec.to_builtins(row) for row in rows]
    for table in tables:
        if "skipped" in table:
            # A column of maps: as a struct it would have a field for each key of any row.
            table["skipped"] = list(table["skipped"].items())
    maps = {"skipped": pyarrow.map_(pyarrow.string(), pyarrow.int64())}
    names = list(tables[0]) if tables else []
    columns = {n: pyarrow.array([t[n] for t in tables], maps.get(n)) for n in names}
    parquet.write_table(pyarrow.table(columns), path.with_name(path.name + ".part"))
    os.replace(path.with_name(path.name + ".part"), path)
