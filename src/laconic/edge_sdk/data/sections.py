"""`data` in a device's configuration: a path, or a table whose `kind` says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from laconic.config import Section
from laconic.edge_sdk.data.arrays import NpzFile
from laconic.edge_sdk.data.buffer import Keep
from laconic.edge_sdk.data.buffer_folder import BufferFolder
from laconic.edge_sdk.data.checks import OnBadRow
from laconic.edge_sdk.data.choosing import Examples
from laconic.edge_sdk.data.csv_file import CsvFile
from laconic.edge_sdk.data.sqlite_table import SqliteTable


class NpzSection(Section, frozen=True, tag_field="kind", tag="npz"):
    """`kind = "npz"`: a file with arrays `x` and `y`, read again when it has changed."""

    path: str
    on_bad_row: OnBadRow = "raise"
    max_bytes: int = 2**28


class BufferSection(Section, frozen=True, tag_field="kind", tag="buffer"):
    """`kind = "buffer"`: the folder of an `ExampleBuffer` that another program fills."""

    path: str
    keep: Keep = "newest"
    max_bytes: int = 2**26
    max_examples: int | None = None


Columns: TypeAlias = str | list[str] | dict[str, str | list[str]]


class CsvSection(Section, frozen=True, tag_field="kind", tag="csv"):
    """`kind = "csv"`: a file with one example in a row, read again when it has changed."""

    path: str
    features: Columns
    label: Columns | None = None
    classes: tuple[str, ...] | None = None
    header: bool | list[str] = True
    delimiter: str = ","
    quote: str = '"'
    on_bad_row: OnBadRow = "raise"
    max_bytes: int = 2**26


class SqliteSection(Section, frozen=True, tag_field="kind", tag="sqlite"):
    """`kind = "sqlite"`: a table or query of a SQLite file, read again when the file has changed."""

    path: str
    source: str
    features: Columns
    label: Columns | None = None
    classes: tuple[str, ...] | None = None
    on_bad_row: OnBadRow = "raise"
    max_bytes: int = 2**26
    wait_s: float = 5.0


DataSection: TypeAlias = NpzSection | BufferSection | CsvSection | SqliteSection
KINDS: dict[str, type[DataSection]] = {
    "npz": NpzSection,
    "csv": CsvSection,
    "sqlite": SqliteSection,
    "buffer": BufferSection,
}
"""What `kind` may be."""


def examples_of(data: str | DataSection, folder: Path) -> Examples:
    """What a configuration describes; its paths are relative to `folder`."""
    match data:
        case str():
            return folder / data
        case NpzSection():
            return NpzFile(folder / data.path, data.on_bad_row, data.max_bytes)
        case BufferSection():
            return BufferFolder(folder / data.path, data.keep, data.max_bytes, data.max_examples)
        case CsvSection():
            return CsvFile(
                folder / data.path,
                data.features,
                data.label,
                data.classes,
                header=data.header,
                delimiter=data.delimiter,
                quote=data.quote,
                on_bad_row=data.on_bad_row,
                max_bytes=data.max_bytes,
            )
        case SqliteSection():
            return SqliteTable(
                folder / data.path,
                data.source,
                data.features,
                data.label,
                data.classes,
                on_bad_row=data.on_bad_row,
                max_bytes=data.max_bytes,
                wait_s=data.wait_s,
            )
