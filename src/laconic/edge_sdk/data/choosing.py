"""Makes a source of whatever a program gives as its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from laconic.edge_sdk.data.arrays import Arrays, NpzFile
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Source
from laconic.edge_sdk.data.streams import Callback, Dataset, Indexed, Samples
from laconic.errors import DataError
from laconic.runtime import Manifest


@runtime_checkable
class Bindable(Protocol):
    """Examples that learn from a signature what they are to look like: files, tables, a buffer."""

    def bind(self, signature: Signature) -> Source:
        """The source of examples with this signature. Raises `DataError`."""
        ...


Examples: TypeAlias = (
    tuple[Any, Any] | str | Path | Bindable | Source | Indexed | Iterable[Any] | Callable[[], Any]
)
"""Arrays `(x, y)`; the path of an `.npz` file; `NpzFile`, `CsvFile`, `SqliteTable` or `ExampleBuffer`; a data
set with length and index; an iterable of samples or batches `(x, y)`; a function that gives any of these."""


def source_of(data: Examples, manifest: Manifest) -> Source:
    """The source for `data` that a model with this manifest can learn from.

    Raises `DataError` for what no source can be made of, or cannot be read now.
    """
    return _source(data, Signature.of(manifest), may_ask=True)


def _source(data: object, signature: Signature, *, may_ask: bool) -> Source:
    # Asking a protocol takes as long as the rest of a learner, and a simulator makes thousands of them.
    if type(data) is not tuple and isinstance(data, Bindable):
        return data.bind(signature)
    if callable(getattr(type(data), "snapshot", None)):
        return data  # type: ignore[return-value]
    if isinstance(data, str | Path):
        if Path(data).suffix != ".npz":
            remedy = "name the columns: CsvFile(path, ...), SqliteTable(path, ...)"
            raise DataError("file of examples", value=str(data), limit=".npz", remedy=remedy)
        return NpzFile(data).bind(signature)
    # A tuple of two tuples is two samples; of two of anything else, inputs and targets.
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple):
        return Arrays(signature, *data)
    if not signature.targets and isinstance(data, np.ndarray | Mapping):
        return Arrays(signature, data, None)
    if isinstance(data, Mapping) and {"x", "y"} == data.keys():
        return Arrays(signature, data["x"], data["y"])
    # An iterable class with a call of its own is data first.
    if isinstance(data, Indexed) and not isinstance(data, list | tuple | bytes | Mapping | np.ndarray):
        return Dataset(signature, data)
    if isinstance(data, Iterable) and not isinstance(data, bytes | Mapping | np.ndarray):
        return Samples(signature, data)
    if callable(data) and may_ask:
        return Callback(data, lambda answer: _source(answer, signature, may_ask=False))
    raise DataError(
        "type of the data",
        value=type(data).__name__,
        limit="arrays (x, y), a file, a table, a buffer, a data set, an iterable or a function",
        remedy="see docs/data.md",
    )
