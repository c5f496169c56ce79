"""Which columns of a table are what of an example, and how their values become numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from laconic.edge_sdk.data.checks import OnBadRow
from laconic.edge_sdk.data.collecting import Collector
from laconic.edge_sdk.data.signature import Field, Signature
from laconic.edge_sdk.data.snapshot import Array
from laconic.errors import DataError

Columns: TypeAlias = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""One column, several in order, or either by the name of an input, target or output."""

Convert: TypeAlias = Callable[[Any], float]


@dataclass(frozen=True)
class Table:
    """How rows become examples.

    `features` and `label` name columns; several are values of one array, in C order, of the shape that the
    model takes. `classes` are the label's words, in the order of the model's classes. `converters` make a
    number of a column's value; without one, `float` does.
    """

    features: Columns
    label: Columns | None
    classes: Sequence[str] | None = None
    converters: Mapping[str, Convert] = field(default_factory=dict)


class Rows:
    """Takes the rows of one reading of a table."""

    def __init__(
        self,
        signature: Signature,
        table: Table,
        names: Sequence[str],
        path: Path,
        on_bad_row: OnBadRow,
        max_bytes: int,
    ) -> None:
        """`names` are the table's columns. Raises `DataError` if one that is asked for is not there."""
        self._path, self._max_bytes = path, max_bytes
        self.collector = Collector(signature, str(path), on_bad_row)
        x = _placed(signature.inputs, table.features, f"features of {path}")
        y = _placed(signature.targets, table.label, f"label of {path}")
        self._inputs = {f.name for f in signature.inputs}
        place = {name: i for i, name in reversed(list(enumerate(names)))}
        self._picks: list[tuple[Field, list[tuple[int, str, Convert]]]] = []
        for f, columns in (*x, *y):
            if missing := [c for c in columns if c not in place]:
                raise DataError(f"columns of {path}", value=missing, limit=list(names))
            words = table.classes if f.classes else None
            if words is not None and len(words) != f.classes:
                raise DataError(f"number of classes for {f.name!r}", value=len(words), limit=f.classes)
            picks = [(place[c], c, table.converters.get(c) or _convert(words)) for c in columns]
            self._picks.append((f, picks))

    def add(self, row: Sequence[Any], where: str) -> None:
        """Take one row, which errors call `where`. Raises `DataError`."""
        try:
            values = {f.name: self._values(f, picks, row, where) for f, picks in self._picks}
        except DataError as e:
            self.collector.bad(e)
            return
        x = {name: value for name, value in values.items() if name in self._inputs}
        y = {name: value for name, value in values.items() if name not in self._inputs}
        self.collector.add(x, y, where)
        if self.collector.bytes > self._max_bytes:
            raise DataError(
                f"bytes of the first {self.collector.samples} examples of {self._path}",
                value=self.collector.bytes,
                limit=self._max_bytes,
                remedy="raise max_bytes, or give a part of it",
            )

    def _values(
        self, f: Field, picks: list[tuple[int, str, Convert]], row: Sequence[Any], where: str
    ) -> Array:
        numbers: list[Any] = []
        for place, column, convert in picks:
            if place >= len(row):
                raise DataError(
                    f"columns in {where} of {self._path}", value=len(row), limit=f"{place + 1} or more"
                )
            value = row[place]
            if isinstance(value, bytes):
                return self._blob(f, value, column, where)
            try:
                numbers.append(convert(value))
            except Exception as e:  # whatever a program's own converter raises
                raise DataError(
                    f"{column!r} in {where} of {self._path} ({type(e).__name__})",
                    value=value,
                    limit="a number, or a word of classes" if f.classes else "a number",
                    remedy='correct it, or leave such rows out with on_bad_row="skip"',
                ) from e
        return self._shaped(f, np.array(numbers), where)

    def _blob(self, f: Field, value: bytes, column: str, where: str) -> Array:
        try:
            return self._shaped(f, np.frombuffer(value, f.dtype.newbyteorder("<")), where)
        except ValueError as e:
            raise DataError(
                f"bytes of {column!r} in {where} of {self._path}",
                value=len(value),
                limit=f"a multiple of {f.dtype.itemsize}: little-endian {f.dtype}",
            ) from e

    def _shaped(self, f: Field, values: Array, where: str) -> Array:
        try:
            return values.reshape([-1 if n is None else n for n in f.shape])
        except ValueError as e:
            raise DataError(
                f"values of {f.name!r} in {where} of {self._path}",
                value=len(values),
                limit=tuple("any" if n is None else n for n in f.shape),
            ) from e


def wanted(table: Table) -> list[str]:
    """Every column that a table's rows are asked for, each once."""
    named: list[str] = []
    for columns in (table.features, table.label):
        parts = columns.values() if isinstance(columns, Mapping) else [] if columns is None else [columns]
        for part in parts:
            named += [part] if isinstance(part, str) else part
    return list(dict.fromkeys(named))


def _placed(fields: Sequence[Field], columns: Columns | None, what: str) -> list[tuple[Field, list[str]]]:
    """The columns of each field, in the fields' order."""
    if isinstance(columns, Mapping):
        given = {name: [c] if isinstance(c, str) else list(c) for name, c in columns.items()}
    elif columns is None:
        given = {}
    else:
        one = [columns] if isinstance(columns, str) else list(columns)
        if len(fields) != 1:
            raise DataError(what, value=one, limit=[f.name for f in fields], remedy="give columns by name")
        given = {fields[0].name: one}
    found = [(f, given.get(f.name, given.get(f.alias, []))) for f in fields]
    if len(given) != len(fields) or not all(c for _, c in found):
        raise DataError(what, value=sorted(given), limit=[f.name for f in fields])
    for f, names in found:
        if f.values is not None and len(names) not in (1, f.values):
            raise DataError(f"columns for {f.name!r} in the {what}", value=len(names), limit=f.values)
    return found


def _convert(words: Sequence[str] | None) -> Convert:
    if words is None:
        return float
    index = {word: i for i, word in enumerate(words)}
    return lambda value: index[value if isinstance(value, str) else str(value)]
