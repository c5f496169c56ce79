"""Makes arrays of samples and batches that come one after the other."""

from __future__ import annotations

import numpy as np

from laconic.edge_sdk.data.checks import LEFT_OUT, OnBadRow, array_of, as_batch, converted, flaw, snapshot
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Array, Snapshot
from laconic.errors import DataError


class Collector:
    """Takes samples or batches, checks and converts each, and gives all of them as arrays.

    `samples` and `bytes` are what it holds; `rows` counts what it was given, bad rows too.
    """

    def __init__(self, signature: Signature, where: str, on_bad_row: OnBadRow = "raise") -> None:
        """`where` names the whole in errors."""
        self._signature, self._where, self._on_bad_row = signature, where, on_bad_row
        self._parts: dict[str, list[Array]] = {f.name: [] for f in signature.fields}
        self.rows = self.samples = self.bytes = 0

    @property
    def skipped(self) -> int:
        """How many rows were left out."""
        return self.rows - self.samples

    def add(self, x: object, y: object, row: str = "") -> None:
        """Take one sample, or a batch with samples on axis 0; `row` names it in errors instead of its number.

        Raises `DataError`: what has been taken stays.
        """
        row = row or f"row {self.rows}"
        try:
            self._take(x, y, row)
        except DataError:
            if self._on_bad_row == "raise":
                raise
            self.rows += 1

    def bad(self, error: DataError) -> None:
        """A row of which not even the values are there. Raises `error` unless bad rows are left out."""
        if self._on_bad_row == "raise":
            raise error
        self.rows += 1

    def snapshot(self) -> Snapshot:
        """All that was taken."""
        joined = {f.name: self._joined(f.name) for f in self._signature.fields}
        return snapshot(self._signature, joined, self.skipped)

    def cut(self, samples: int) -> None:
        """Keep the first `samples` only."""
        for name in self._parts:
            self._parts[name] = [self._joined(name)[:samples]]
        self.rows -= self.samples - samples
        self.samples = samples
        self.bytes = sum(a.nbytes for parts in self._parts.values() for a in parts)

    def _take(self, x: object, y: object, row: str) -> None:
        named = self._signature.named(x, y, f"{row} of {self._where}")
        ready: dict[str, Array] = {}
        unfit = None
        for field in self._signature.fields:
            where = f"{field.name!r} in {row} of {self._where}"
            batch, many = as_batch(field, array_of(named[field.name], where), where)
            array, bad = converted(field, batch)
            if unfit is not None and len(bad) != len(unfit):
                raise DataError(f"samples of {where}", value=len(bad), limit=len(unfit))
            if self._on_bad_row == "raise" and bad.any():
                first = int(np.argmax(bad))
                here = f"row {self.rows + first}" if many else row
                raise flaw(field, batch[first], f"{here} of {self._where}", LEFT_OUT)
            before = self._parts[field.name]
            if before and before[0].shape[1:] != array.shape[1:]:
                raise DataError(f"shape of {where}", value=array.shape[1:], limit=before[0].shape[1:])
            unfit = bad if unfit is None else unfit | bad
            # A batch may be a buffer that its owner fills again.
            ready[field.name] = array.copy() if array is batch else array
        assert unfit is not None  # a model has an input
        for name, array in ready.items():
            kept = array[~unfit] if unfit.any() else array
            self._parts[name].append(kept)
            self.bytes += kept.nbytes
        self.rows += len(unfit)
        self.samples += int(len(unfit) - np.count_nonzero(unfit))

    def _joined(self, name: str) -> Array:
        parts = self._parts[name]
        if not parts:
            field = next(f for f in self._signature.fields if f.name == name)
            return np.empty((0, *(n or 0 for n in field.shape)), field.dtype)
        if len(parts) > 1:
            self._parts[name] = parts = [np.concatenate(parts)]
        return parts[0]
