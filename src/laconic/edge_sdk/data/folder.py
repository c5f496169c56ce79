"""The few operations on files of which a buffer's durability is made."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from laconic.errors import StorageError, StoreLocked

LOCK = "lock"


class Folder:
    """A folder of small files that one process holds: append, make durable, rename, remove.

    All but `open` raise `OSError` as the system does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder if need be, and hold it. Raises `StoreLocked`, `StorageError`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            self.close()
            raise StoreLocked(
                f"the buffer {self.path} is in use", remedy="end the other process, or use another folder"
            ) from e
        except OSError as e:
            self.close()
            raise StorageError(
                f"cannot open the buffer {self.path} ({e.strerror})", remedy="is it writable?"
            ) from e

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def sizes(self) -> dict[str, int]:
        """Every file but the lock, with its size in bytes."""
        found: dict[str, int] = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name != LOCK and entry.is_file(follow_symlinks=False):
                    found[entry.name] = entry.stat().st_size
        return found

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.path / name).read_bytes()

    def append(self, name: str, content: bytes) -> None:
        """Put `content` at a file's end and make it durable; the file is made if there is none."""
        new = not (self.path / name).exists()
        file = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        if new:
            self._sync()

    def truncate(self, name: str, size: int) -> None:
        """Cut a file to `size` bytes."""
        os.truncate(self.path / name, size)

    def rename(self, name: str, new: str) -> None:
        """Give a file another name."""
        os.rename(self.path / name, self.path / new)
        self._sync()

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path / name)

    def _sync(self) -> None:
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
