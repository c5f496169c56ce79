"""Examples that are arrays already: in memory, memory-mapped, or in a `.npz` file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from laconic.edge_sdk.data.checks import OnBadRow, array_of, as_whole, checked
from laconic.edge_sdk.data.files import FileSource, bounded
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Snapshot, Source
from laconic.errors import ConfigError, DataError
from laconic.runtime import read_arrays


class Arrays:
    """Arrays of inputs and targets, samples on axis 0, used where they lie; another dtype is converted.

    What is written into them between two trainings is seen by the next; while one runs they must be left
    alone: `ExampleBuffer` is for examples that come at any time.
    """

    def __init__(
        self,
        signature: Signature,
        x: object,
        y: object,
        *,
        on_bad_row: OnBadRow = "raise",
        where: str = "the arrays",
    ) -> None:
        """`x`, `y`: each an array or a mapping of arrays by name; `y` is None for a model without targets.

        Raises `DataError` for shapes, dtypes and names that do not fit. Values are looked at when training
        begins.
        """
        named = signature.named(x, y, where)
        self._arrays = {name: array_of(value, f"{name!r} in {where}") for name, value in named.items()}
        counts = {
            f.name: len(as_whole(f, self._arrays[f.name], f"{f.name!r} in {where}")) for f in signature.fields
        }
        if len(set(counts.values())) > 1:
            raise DataError(f"numbers of samples in {where}", value=counts, limit="the same everywhere")
        self.samples = next(iter(counts.values()))
        self._signature, self._on_bad_row, self._where = signature, on_bad_row, where

    def snapshot(self) -> Snapshot:
        return checked(self._signature, self._arrays, self._where, self._on_bad_row)


@dataclass(frozen=True)
class NpzFile:
    """An `.npz` file with arrays `x` and `y`; read again when it has changed."""

    path: str | Path
    on_bad_row: OnBadRow = "raise"
    max_bytes: int = 2**28

    def bind(self, signature: Signature) -> Source:
        """The source for a model. Raises `DataError` if the file cannot be used as it is now."""
        return FileSource([Path(self.path)], lambda: self._read(signature))

    def _read(self, signature: Signature) -> Snapshot:
        path = Path(self.path)
        bounded(path, self.max_bytes)
        try:
            x, y = read_arrays(path)
        except ConfigError as e:
            raise DataError(e.thing, value=e.value, limit=e.limit, remedy=e.remedy) from e
        return Arrays(signature, x, y, on_bad_row=self.on_bad_row, where=str(path)).snapshot()
