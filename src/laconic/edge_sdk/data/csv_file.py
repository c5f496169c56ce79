"""Labelled examples in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from laconic.edge_sdk.data.checks import OnBadRow
from laconic.edge_sdk.data.columns import Columns, Convert, Rows, Table, wanted
from laconic.edge_sdk.data.files import FileSource, bounded, unreadable
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Snapshot, Source
from laconic.errors import DataError


@dataclass(frozen=True)
class CsvFile:
    """A CSV file, one example in a row (RFC 4180 and its relatives); read again when it has changed.

    `features`, `label`, `classes` and `converters`: see `laconic.edge_sdk.data.columns.Table`. `header`:
    whether the first row names the columns, or else their names; columns without names are "0", "1" and so
    on. `max_bytes` bounds the file and, in memory, the examples.
    """

    path: str | Path
    features: Columns
    label: Columns | None = None
    classes: Sequence[str] | None = None
    converters: Mapping[str, Convert] = field(default_factory=dict)
    header: bool | Sequence[str] = True
    delimiter: str = ","
    quote: str = '"'
    on_bad_row: OnBadRow = "raise"
    max_bytes: int = 2**26

    def bind(self, signature: Signature) -> Source:
        """The source for a model. Raises `DataError` if the file cannot be used as it is now."""
        return FileSource([Path(self.path)], lambda: self._read(signature))

    def _read(self, signature: Signature) -> Snapshot:
        path = Path(self.path)
        bounded(path, self.max_bytes)
        try:
            # Bytes that are no text spoil their own row, not the file.
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                reader = csv.reader(file, delimiter=self.delimiter, quotechar=self.quote, strict=True)
                return self._collected(signature, path, reader)
        except OSError as e:
            raise unreadable(path, e) from e
        except TypeError as e:
            raise DataError(
                "delimiter or quote", value=(self.delimiter, self.quote), limit="one character"
            ) from e

    def _collected(self, signature: Signature, path: Path, reader: Any) -> Snapshot:
        rows: Rows | None = None
        names = None if isinstance(self.header, bool) else self.header
        table = Table(self.features, self.label, self.classes, self.converters)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as e:
                if rows is None:
                    raise DataError(f"line {reader.line_num} of {path} ({e})") from e
                rows.collector.bad(DataError(f"line {reader.line_num} of {path} ({e})"))
                continue
            if row is None:
                break
            if not row:
                continue
            if rows is None:
                first = row if self.header is True else (names or [str(i) for i in range(len(row))])
                rows = Rows(signature, table, first, path, self.on_bad_row, self.max_bytes)
                if self.header is True:
                    continue
            rows.add(row, f"line {reader.line_num}")
        if rows is None:
            # Nothing has been written yet.
            rows = Rows(signature, table, wanted(table), path, self.on_bad_row, self.max_bytes)
        return rows.collector.snapshot()
