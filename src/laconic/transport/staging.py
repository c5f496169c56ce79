"""Group commit: what several events save becomes durable together, and reads as saved at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from laconic.storage import Store

_ENTRY_BYTES = 64
"""A key costs memory too."""


class StagedStore:
    """A store with entries in front of it that are not durable yet.

    To flush a disk takes milliseconds whatever it is given, so commits share a flush (DeWitt et al.,
    "Implementation techniques for main memory database systems", SIGMOD 1984, section 5.2).

    All staged entries become durable in one write, all or none.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._staged: dict[str, bytes | None] = {}
        self._leaving: dict[str, bytes | None] = {}
        """What is being written; it is older than what is staged."""
        self.staged_bytes = 0
        """What is staged, about."""

    def get(self, key: str) -> bytes | None:
        """The blob under `key`, or None."""
        for ahead in (self._staged, self._leaving):
            if key in ahead:
                return ahead[key]
        return self._store.get(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with `prefix`, in sorted order."""
        ahead = {**self._leaving, **self._staged}
        if not ahead:
            return self._store.keys(prefix)
        # A copy: a computation may read while the node goes on.
        staged = {k: blob for k, blob in ahead.items() if k.startswith(prefix)}
        durable = (k for k in self._store.keys(prefix) if k not in staged)
        return iter(sorted([*durable, *(k for k, blob in staged.items() if blob is not None)]))

    def stage(self, entries: Mapping[str, bytes | None]) -> None:
        """Put `entries` in front; None hides a key."""
        self._staged.update(entries)
        self.staged_bytes += sum(_ENTRY_BYTES + len(blob or b"") for blob in entries.values())

    def begin(self) -> Callable[[], None]:
        """What makes durable what is staged, for another thread, with `landed` after it; one at a time.

        It raises `StorageError`, and nothing of it is durable.
        """
        leaving = self._leaving = self._staged
        self._staged, self.staged_bytes = {}, 0

        def write() -> None:
            if leaving:
                self._store.write(leaving)

        return write

    def landed(self) -> None:
        """What `begin` has made is over."""
        # Another one: who reads the old one meanwhile finds what is durable now.
        self._leaving = {}

    def commit(self) -> None:
        """Make durable what is staged. Raises `StorageError`, and nothing of it is."""
        self.begin()()
        self.landed()

    def write(self, entries: Mapping[str, bytes | None]) -> None:
        """Make durable what is staged and `entries`."""
        self.stage(entries)
        self.commit()
