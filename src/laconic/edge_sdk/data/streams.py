"""Examples that a program's own code gives: iterables, data sets with an index, functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from laconic.edge_sdk.data.checks import OnBadRow
from laconic.edge_sdk.data.collecting import Collector
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Snapshot, Source, failed, snapshot_of
from laconic.errors import DataError

MAX_BYTES = 2**28
"""So much is held in memory at most, unless something else is said."""


@runtime_checkable
class Indexed(Protocol):
    """A data set as PyTorch's map-style ones are: its length, and the sample at an index from 0."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Samples:
    """An iterable of samples or batches `(x, y)`, drained when training begins, up to a limit.

    One that can be iterated over again is, for each training. What an iterator gives, once, is kept for all
    trainings. It must not wait for what has yet to happen: `ExampleBuffer` is for that.
    """

    def __init__(
        self,
        signature: Signature,
        samples: Iterable[object],
        *,
        max_samples: int | None = None,
        max_bytes: int = MAX_BYTES,
        on_bad_row: OnBadRow = "raise",
    ) -> None:
        self._signature, self._iterable, self._on_bad_row = signature, samples, on_bad_row
        self._max_samples, self._max_bytes = max_samples, max_bytes
        self._iterator = samples if isinstance(samples, Iterator) else None
        self._collector = self._new()
        self._ended = False

    @property
    def samples(self) -> int:
        """Those of the last training; at least one while there may be more."""
        known = self._collector.samples
        return known if self._ended else max(1, known)

    def snapshot(self) -> Snapshot:
        if self._iterator is None:
            collector = self._new()
            self._drain(collector, iter(self._iterable))
            self._collector = collector
        elif not self._ended:
            self._drain(self._collector, self._iterator)
            self._ended = True
        return self._collector.snapshot()

    def _new(self) -> Collector:
        return Collector(self._signature, type(self._iterable).__name__, self._on_bad_row)

    def _drain(self, collector: Collector, samples: Iterator[object]) -> None:
        """Take until `samples` end or a limit is reached: of the last batch, what is within it."""
        most = self._most(collector)
        while collector.samples < most and (item := next(samples, self)) is not self:
            x, y = pair(item, self._signature)
            collector.add(x, y)
            most = self._most(collector)
        if collector.samples > most:
            collector.cut(int(most))

    def _most(self, collector: Collector) -> float:
        """How many samples of the size that they have are within the limits."""
        most = float("inf") if self._max_samples is None else self._max_samples
        if not collector.samples:
            return most
        return min(most, self._max_bytes * collector.samples // collector.bytes)


class Dataset:
    """A data set with a length and an index, read anew for each training."""

    def __init__(
        self,
        signature: Signature,
        items: Indexed,
        *,
        max_bytes: int = MAX_BYTES,
        on_bad_row: OnBadRow = "raise",
    ) -> None:
        self._signature, self._items = signature, items
        self._max_bytes, self._on_bad_row = max_bytes, on_bad_row

    @property
    def samples(self) -> int:
        """The data set's length."""
        return len(self._items)

    def snapshot(self) -> Snapshot:
        name = type(self._items).__name__
        collector = Collector(self._signature, name, self._on_bad_row)
        for index in range(len(self._items)):
            try:
                item = self._items[index]
            except Exception as e:
                raise failed(f"sample {index} of {name}", e) from e
            x, y = pair(item, self._signature)
            collector.add(x, y)
            if collector.bytes > self._max_bytes:
                raise DataError(
                    f"bytes of the first {collector.samples} samples of {name}",
                    value=collector.bytes,
                    limit=self._max_bytes,
                    remedy="give a part of it, or memory-mapped arrays",
                )
        return collector.snapshot()


class Callback:
    """A function that is asked for the examples when training begins, in the thread that trains."""

    def __init__(self, ask: Callable[[], object], source: Callable[[object], Source]) -> None:
        """`source` makes a source of what `ask` returns."""
        self._ask, self._source = ask, source
        self._known = 0
        self._one_at_a_time = threading.Lock()

    @property
    def samples(self) -> int:
        """As many as the last answer had; at least one, since the next may have some."""
        return max(1, self._known)

    def snapshot(self) -> Snapshot:
        with self._one_at_a_time:
            try:
                answer = self._ask()
            except DataError:
                raise
            except Exception as e:
                raise failed(getattr(self._ask, "__name__", "the function"), e) from e
            snapshot = snapshot_of(self._source(answer))
            self._known = snapshot.samples
            return snapshot


def pair(item: object, signature: Signature) -> tuple[object, object]:
    """Inputs and targets of what a program gives for a sample or batch.

    Raises `DataError`.
    """
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    if not signature.targets and not isinstance(item, tuple):
        return item, None
    if isinstance(item, Mapping) and {"x", "y"} == item.keys():
        return item["x"], item["y"]
    raise DataError("a sample", value=type(item).__name__, limit="a pair (x, y), or a mapping with x and y")
