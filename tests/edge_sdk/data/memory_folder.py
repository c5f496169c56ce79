"""A folder in memory that can crash in the middle of any operation, or be full."""

from __future__ import annotations

import errno

from laconic.errors import StoreLocked


class Crash(Exception):
    """The process is gone."""


class MemoryFolder:
    """What `laconic.edge_sdk.data.folder.Folder` is, for tests that need a thousand of them.

    `crash_at` counts operations from 0: of an append that crashes, `part` of the bytes are there. `room` is
    the size of the disk.
    """

    path = "memory"

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self.operations = 0
        self.crash_at: int | None = None
        self.part = 0.0
        self.room = 2**40
        self.held = False
        self.largest = self.used

    @property
    def used(self) -> int:
        return sum(map(len, self.files.values()))

    def open(self) -> None:
        if self.held:
            raise StoreLocked("memory")
        self.held = True

    def close(self) -> None:
        self.held = False

    def sizes(self) -> dict[str, int]:
        return {name: len(content) for name, content in self.files.items()}

    def read(self, name: str) -> bytes:
        return self.files[name]

    def append(self, name: str, content: bytes) -> None:
        before = self.files.get(name, b"")
        if self._crashes():
            self.files[name] = before + content[: round(self.part * len(content))]
            raise Crash
        fits = content[: max(0, self.room - self.used)]
        self.files[name] = before + fits
        self.largest = max(self.largest, self.used)
        if len(fits) < len(content):
            raise OSError(errno.ENOSPC, "No space left on device")

    def truncate(self, name: str, size: int) -> None:
        if self._crashes():
            raise Crash
        self.files[name] = self.files[name][:size]

    def rename(self, name: str, new: str) -> None:
        if self._crashes():
            raise Crash
        self.files[new] = self.files.pop(name)

    def remove(self, name: str) -> None:
        if self._crashes():
            raise Crash
        self.files.pop(name, None)

    def _crashes(self) -> bool:
        self.operations += 1
        return self.crash_at is not None and self.operations > self.crash_at
