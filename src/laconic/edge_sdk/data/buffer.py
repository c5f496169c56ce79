"""A bounded buffer of labelled examples on the disk, for programs that see one at a time."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from laconic.edge_sdk.data.checks import snapshot
from laconic.edge_sdk.data.folder import Folder
from laconic.edge_sdk.data.keeping import Keeping, Newest, Uniform, key_of
from laconic.edge_sdk.data.one_example import class_of, classes_of, signature_of, values_of
from laconic.edge_sdk.data.segments import NUMBER_BITS, Layout
from laconic.edge_sdk.data.shelf import Shelf
from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Snapshot, Source
from laconic.errors import ConfigError, DataError, DiskFull, LaconicError, StorageError
from laconic.runtime import Bundle, Manifest, Trainer

Keep = Literal["newest", "uniform", "balanced"]
"""The newest examples, a uniform sample of all that ever came, or such a sample of each class alike."""

_KEPT_PARTS: dict[str, int] = {"newest": 12, "uniform": 9, "balanced": 9}
"""Of 16 segments, so many are for examples that are kept; in the others lie those that have gone since. More
for a sample, whose gaps lie anywhere: a segment that is half full costs two writes for one example."""

_WAITING_FLUSHES = 4
"""So many flushes' examples may wait in memory, or as many as go into a segment, for a disk that is slower
than the sensor."""


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """What has become of the examples that this process added, and what there is."""

    samples: int
    """Kept now."""
    disk_bytes: int
    """On the disk."""
    added: int
    """Taken, whether or not they were kept."""
    refused: int
    """Not taken: they do not fit the model."""
    lost: int
    """Taken, but not written or no longer there: the disk was full, slow or faulty."""
    damaged: int
    """Records that were found changed on the disk, and files in which nothing could be read."""
    written_bytes: int
    fault: str
    """The last thing that went wrong, or nothing."""


@dataclass(slots=True)
class _Waiting:
    """An example in memory, and what goes from the disk once it is there."""

    body: bytes
    freed: tuple[int, ...]


class ExampleBuffer:
    """Labelled examples in a folder, bounded in bytes, for one process.

    `add` takes one from any thread and returns at once; a thread of the buffer's own writes them in batches.
    A crash or kill at any moment loses no more than what came in the last `flush_every_s` seconds or, if that
    is less, the last `flush_every` examples, and what comes while these are written; with `durable=True`
    nothing whose `add` has returned. What is damaged on the disk is left out: an example is never altered.
    """

    def __init__(
        self,
        path: str | Path,
        bundle: str | Path | Bundle | Trainer | Manifest | Signature,
        *,
        max_bytes: int = 2**26,
        max_examples: int | None = None,
        keep: Keep = "newest",
        seed: int = 0,
        flush_every: int = 256,
        flush_every_s: float = 5.0,
        durable: bool = False,
        on_full_disk: Literal["drop_newest", "drop_oldest"] = "drop_newest",
        strict: bool = False,
        folder: Folder | None = None,
    ) -> None:
        """`path`: a folder of the buffer's own. `bundle`: the model whose inputs and targets examples have.

        `max_bytes` bounds what lies on the disk, `max_examples` what is kept besides. `seed`: of the sample.
        `on_full_disk`: what goes when a write fails, the examples to be written or the oldest file. `strict`:
        `add` and `flush` raise what they otherwise count and note in `status`. `folder` carries out the
        operations on files.

        Raises `ConfigError`, `DataError` for settings and models that cannot be, `StoreLocked` when another
        process holds the folder, `StorageError` when it cannot be opened.
        """
        self._signature = signature_of(bundle)
        self._layout = Layout(self._signature)
        _check(max_examples, flush_every, flush_every_s, keep)
        self._folder = folder or Folder(Path(path))
        self._shelf = Shelf(self._folder, self._layout, max_bytes)
        room = self._shelf.records_per_segment * _KEPT_PARTS[keep]
        self.capacity = min(room, max_examples or room)
        """How many examples are kept at most."""
        self._groups = {"newest": 0, "uniform": 1}.get(keep, classes_of(self._signature))
        if keep == "balanced" and not self._groups:
            raise ConfigError("keep", value=keep, limit="newest or uniform, for a model without classes")
        self._keeping = self._new_keeping()
        self._seed, self._flush_every, self._flush_every_s = seed, flush_every, flush_every_s
        self._most_waiting = max(_WAITING_FLUSHES * flush_every, self._shelf.records_per_segment)
        self._durable, self._drop_oldest, self._strict = durable, on_full_disk == "drop_oldest", strict
        self._index = threading.Condition()
        """Guards what is known of examples; notified when there is something to write."""
        self._disk = threading.Lock()
        """Guards the shelf; taken before the other, never after it."""
        self._kept: dict[int, tuple[int, int]] = {}
        """Key and group by number."""
        self._waiting: dict[int, _Waiting] = {}
        """What is not yet on the disk."""
        self._writing: frozenset[int] = frozenset()
        """Those of them that are on their way there."""
        self._gone: dict[int, tuple[int, int]] = {}
        """What is on the disk and has to go as soon as something else is."""
        self._added = self._refused = self._lost = 0
        self._fault = ""
        self._closed = False
        self._writer: threading.Thread | None = None
        self._folder.open()
        try:
            self._restore()
        except OSError as e:
            self._folder.close()
            raise StorageError(
                f"cannot read the buffer {path} ({e.strerror})", remedy="is it readable?"
            ) from e
        self._next = self._shelf.incarnation << NUMBER_BITS

    # --- for the program

    def add(self, x: object, y: object = None) -> bool:
        """Take one example: inputs and targets of one sample, each an array or a mapping by name.

        Returns whether it is kept for now: one that does not fit the model is not, nor one that a sample
        passes over. Raises nothing, unless the buffer is `strict`: then `DataError` for one that does not
        fit, `StorageError` for one that cannot be written.
        """
        try:
            values = values_of(self._signature, x, y)
        except DataError as e:
            return self._refuse(e)
        with self._index:
            if len(self._waiting) >= self._most_waiting or self._closed:
                why = "the buffer is closed" if self._closed else "the disk is slower than the examples come"
                self._added += 1
                return self._lose(1, StorageError(why, remedy="add fewer, or raise flush_every"))
            number = self._next
            self._next += 1
            self._added += 1
            key = key_of(self._seed, number)
            freed = self._take(number, key, class_of(self._signature, values))
            kept = freed is not None
            if freed is not None:
                self._waiting[number] = _Waiting(self._layout.body(number, key, values), freed)
                if not self._durable and (len(self._waiting) == 1 or len(self._waiting) == self._flush_every):
                    self._start_writer()
                    self._index.notify_all()
        if kept and self._durable:
            return self._write()
        return kept

    def flush(self) -> None:
        """Make durable what has been added. Raises `StorageError` only from a `strict` buffer."""
        self._write()

    def status(self) -> BufferStatus:
        """Counts since the process began, and what is kept now."""
        with self._disk, self._index:
            return BufferStatus(
                samples=len(self._kept),
                disk_bytes=self._shelf.disk_bytes,
                added=self._added,
                refused=self._refused,
                lost=self._lost,
                damaged=self._shelf.damaged,
                written_bytes=self._shelf.written_bytes,
                fault=self._fault,
            )

    def close(self) -> None:
        """Write what waits and let go of the folder; what is added from now on is lost."""
        with self._index:
            if self._closed:
                return
            self._closed = True
            self._index.notify_all()
        if self._writer is not None:
            self._writer.join()
        try:
            self._write()
        finally:
            self._folder.close()

    def __enter__(self) -> ExampleBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- for the learner

    def bind(self, signature: Signature) -> Source:
        """Itself, for a model with the same inputs and targets. Raises `DataError` for any other."""
        if signature != self._signature:
            raise DataError(
                f"examples of the buffer {self._folder.path}",
                value=[f.name for f in self._signature.fields],
                limit=[f.name for f in signature.fields],
                remedy="make it with the bundle that the device trains",
            )
        return self

    @property
    def samples(self) -> int:
        """How many examples are kept."""
        return len(self._kept)

    def snapshot(self) -> Snapshot:
        """The examples that are kept now, oldest first, in memory. Raises `DataError` if there are none."""
        with contextlib.suppress(StorageError):
            self._write()
        with self._disk:
            arrays = self._shelf.read()
            self._mourn()
        found = snapshot(self._signature, arrays)
        if not found.samples:
            raise DataError(f"the buffer {self._folder.path} is empty", remedy="add examples")
        return found

    # --- examples

    def _take(self, number: int, key: int, group: int) -> tuple[int, ...] | None:
        """What may go from the disk once this example is there; None if it is not kept itself."""
        evicted = self._keeping.offer(number, key, group)
        if evicted == number:
            return None
        self._kept[number] = (key, group)
        if evicted is None:
            return ()
        was = self._kept.pop(evicted)
        if evicted in self._waiting and evicted not in self._writing:
            return self._waiting.pop(evicted).freed
        self._gone[evicted] = was
        return (evicted,)

    def _refuse(self, error: DataError) -> bool:
        with self._index:
            self._refused += 1
            self._fault = str(error)
        if self._strict:
            raise error
        return False

    def _lose(self, examples: int, error: LaconicError) -> bool:
        self._lost += examples
        self._fault = str(error)
        if self._strict:
            raise error
        return False

    # --- the disk

    def _restore(self) -> None:
        for number, key, label in self._shelf.open():
            self._take(number, key, label)
        self._gone.clear()
        self._shelf.keep(frozenset(self._kept))
        self._mourn()

    def _write(self) -> bool:
        """Write what waits. Raises `StorageError` if the buffer is strict, else counts and returns False."""
        with self._disk:
            with self._index:
                batch = [(number, waiting.body) for number, waiting in self._waiting.items()]
                self._writing = frozenset(number for number, _ in batch)
            try:
                while batch:
                    count = self._append(batch)
                    self._written([number for number, _ in batch[:count]])
                    batch = batch[count:]
            except OSError as e:
                return self._failed([number for number, _ in batch], e)
            finally:
                self._writing = frozenset()
                self._mourn()
        return True

    def _append(self, batch: list[tuple[int, bytes]]) -> int:
        try:
            return self._shelf.append(batch)
        except OSError:
            if not self._drop_oldest:
                raise
            self._shelf.free()
            return self._shelf.append(batch)

    def _written(self, numbers: list[int]) -> None:
        """These are durable: what was to go for them goes now, and not before."""
        with self._index:
            for number in numbers:
                for gone in self._waiting.pop(number).freed:
                    del self._gone[gone]
                    self._shelf.drop(gone)

    def _failed(self, numbers: list[int], error: OSError) -> bool:
        """What could not be written is lost; what was to go for it stays."""
        with self._index:
            self._writing = frozenset()
            lost = 0
            for number in numbers:
                del self._waiting[number]
                self._gone.pop(number, None)
                lost += self._kept.pop(number, None) is not None
            known, self._keeping = {**self._kept, **self._gone}, self._new_keeping()
            self._kept, self._gone = {}, {}
            for number in sorted(known):
                freed = self._take(number, *known[number])
                if number in self._waiting and freed is not None:
                    self._waiting[number].freed = freed
            kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
            what = f"cannot write to the buffer {self._folder.path} ({error.strerror})"
            return self._lose(lost, kind(what, remedy="make room on the disk"))

    def _mourn(self) -> None:
        """Forget what the shelf has lost."""
        with self._index:
            lost = frozenset(self._shelf.lost & self._kept.keys())
            self._shelf.lost.clear()
            if lost:
                self._keeping.forget(lost)
                self._lost += len(lost)
            for number in lost:
                del self._kept[number]

    def _new_keeping(self) -> Keeping:
        if self._groups == 0:
            return Newest(self.capacity)
        return Uniform(max(1, self.capacity // self._groups), self._groups)

    def _start_writer(self) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_on, name="examples", daemon=True)
            self._writer.start()

    def _write_on(self) -> None:
        """Write what waits when there is enough of it, or when it has waited long enough."""
        while True:
            with self._index:
                while not self._waiting and not self._closed:
                    self._index.wait()
                until = time.monotonic() + self._flush_every_s
                while len(self._waiting) < self._flush_every and not self._closed:
                    left = until - time.monotonic()
                    if left <= 0:
                        break
                    self._index.wait(left)
                if self._closed:
                    return
            with contextlib.suppress(StorageError):
                self._write()


def _check(max_examples: int | None, flush_every: int, flush_every_s: float, keep: str) -> None:
    if keep not in _KEPT_PARTS:
        raise ConfigError("keep", value=keep, limit=list(_KEPT_PARTS))
    if max_examples is not None and max_examples < 1:
        raise ConfigError("max_examples", value=max_examples, limit="1 or more")
    if flush_every < 1:
        raise ConfigError("flush_every", value=flush_every, limit="1 or more")
    if not 0 < flush_every_s <= 86400:
        raise ConfigError("flush_every_s", value=flush_every_s, limit="above 0, up to 86400")
