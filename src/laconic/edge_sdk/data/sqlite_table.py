"""Labelled examples in a SQLite database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from laconic.edge_sdk.data.checks import OnBadRow
from laconic.edge_sdk.data.columns import Columns, Convert, Rows, Table, wanted
from laconic.edge_sdk.data.files import FileSource, unreadable
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Snapshot, Source
from laconic.errors import DataError


@dataclass(frozen=True)
class SqliteTable:
    """A table or a query of a SQLite file, opened for reading alone; read again when the file has changed.

    `source` is a table's name, or a query that begins with SELECT or WITH; the rows of a table come in the
    order of their rowid. `features`, `label`, `classes` and `converters`: see
    `laconic.edge_sdk.data.columns.Table`. A BLOB is a whole array: its values little-endian, in the dtype and
    shape that the model takes. `wait_s`: how long to wait for a program that writes.
    """

    path: str | Path
    source: str
    features: Columns
    label: Columns | None = None
    classes: Sequence[str] | None = None
    converters: Mapping[str, Convert] = field(default_factory=dict)
    on_bad_row: OnBadRow = "raise"
    max_bytes: int = 2**26
    wait_s: float = 5.0

    def bind(self, signature: Signature) -> Source:
        """The source for a model. Raises `DataError` if the file cannot be used as it is now."""
        path = Path(self.path)
        log = path.with_name(f"{path.name}-wal")
        return FileSource([path, log], lambda: self._read(signature, path))

    def _read(self, signature: Signature, path: Path) -> Snapshot:
        table = Table(self.features, self.label, self.classes, self.converters)
        try:
            # The cursor too: an error that is kept would keep it, and the file locked.
            with (
                contextlib.closing(self._connected(path)) as db,
                contextlib.closing(db.execute(self._query(table))) as cursor,
            ):
                names = [str(column[0]) for column in cursor.description or ()]
                rows = Rows(signature, table, names, path, self.on_bad_row, self.max_bytes)
                for number, row in enumerate(cursor, 1):
                    rows.add(row, f"row {number}")
        except (sqlite3.Error, sqlite3.Warning, OSError) as e:
            raise unreadable(path, e) from e
        return rows.collector.snapshot()

    def _connected(self, path: Path) -> sqlite3.Connection:
        if not path.exists():
            raise DataError(f"there is no database {path}", remedy="check the path")
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=self.wait_s)
        # What the file itself defines, views for one, must not do more than read.
        db.execute("PRAGMA query_only=ON")
        db.execute("PRAGMA trusted_schema=OFF")
        return db

    def _query(self, table: Table) -> str:
        if self.source.lstrip()[:6].upper().startswith(("SELECT", "WITH")):
            return self.source
        # With the table's name, since SQLite takes a quoted word that is no column for text.
        name = _quoted(self.source)
        columns = ", ".join(f"{name}.{_quoted(column)}" for column in wanted(table))
        return f"SELECT {columns} FROM {name} ORDER BY {name}.rowid"


def _quoted(name: str) -> str:
    """An identifier as SQL has it (sqlite.org/lang_keywords.html)."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
