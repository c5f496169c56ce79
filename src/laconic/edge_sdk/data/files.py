"""Examples in a file that another program may change: read when it has changed, and not more often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from laconic.edge_sdk.data.snapshot import Snapshot
from laconic.errors import DataError

Stamp = tuple[tuple[int, int, int], ...]


class FileSource:
    """What `read` makes of files, kept until one of them has another size, inode or time of change."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], Snapshot]) -> None:
        """Reads them, so that a mistake in a path or a column is said at once: raises `DataError`."""
        self._paths, self._read = tuple(paths), read
        self._stamp = self._look()
        self._kept = read()

    @property
    def samples(self) -> int:
        """As many as were read last; at least one if the files have changed since."""
        known = self._kept.samples
        return known if self._stamp == self._look() else max(1, known)

    def snapshot(self) -> Snapshot:
        # Before it is read: what is written meanwhile is seen the next time.
        stamp = self._look()
        if stamp != self._stamp:
            self._kept = self._read()
            self._stamp = stamp
        return self._kept

    def _look(self) -> Stamp:
        return tuple(_stamp(path) for path in self._paths)


def bounded(path: Path, max_bytes: int) -> None:
    """Raises `DataError` for a file that is not there or has more than `max_bytes`."""
    try:
        size = path.stat().st_size
    except OSError as e:
        raise unreadable(path, e) from e
    if size > max_bytes:
        raise DataError(
            f"size of {path} in bytes",
            value=size,
            limit=max_bytes,
            remedy="raise max_bytes, or split the file",
        )


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DataError(f"cannot read examples from {path} ({why})", remedy="check the path and its permissions")


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
