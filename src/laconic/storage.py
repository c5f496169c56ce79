"""Durable key-value storage: all of a write or none of it, on disk before the call returns."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from laconic.errors import DiskFull, StorageError, StoreDamaged, StoreLocked


class Store(Protocol):
    """What a driver writes `Save` effects to; `get` and `keys` make it a `StoreView`."""

    def get(self, key: str) -> bytes | None:
        """The blob under `key`, or None."""
        ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with `prefix`, in sorted order."""
        ...

    def write(self, entries: Mapping[str, bytes | None]) -> None:
        """Write all of `entries` or none, durably; None deletes a key."""
        ...


class MemoryStore:
    """A store in memory: for virtual devices, and for tests that crash a node but keep its disk."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self._entries.get(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(k for k in self._entries if k.startswith(prefix)))

    def write(self, entries: Mapping[str, bytes | None]) -> None:
        for key, blob in entries.items():
            if blob is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = blob


class SqliteStore:
    """A store in one SQLite file.

    Write-ahead log with `synchronous=FULL`: a write is on the disk when `write` returns, and a kill at any
    moment leaves the last complete write. One process at a time holds the file; its threads may share the
    store, since long computations read what they need when they need it.

    Raises `StorageError` wherever SQLite reports a fault.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._one_at_a_time = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            os.chmod(path, 0o600)
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        except (sqlite3.Error, OSError) as e:
            raise _fault(e, f"cannot open the store {path}", "is the folder writable?") from e

    def get(self, key: str) -> bytes | None:
        row = self._read("SELECT value FROM entries WHERE key = ?", key)
        return bytes(row[0][0]) if row else None

    def keys(self, prefix: str = "") -> Iterator[str]:
        # Keys are ASCII: the prefix and the highest character end the range.
        rows = self._read(
            "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key", prefix, prefix + "\x7f"
        )
        return iter([str(row[0]) for row in rows])

    def write(self, entries: Mapping[str, bytes | None]) -> None:
        try:
            with self._one_at_a_time:
                self._write(entries)
        except sqlite3.Error as e:
            raise _fault(e, f"cannot write to the store {self.path}", "is the disk read-only?") from e

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in."""
        self._db.close()

    def _write(self, entries: Mapping[str, bytes | None]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for key, blob in entries.items():
                if blob is None:
                    self._db.execute("DELETE FROM entries WHERE key = ?", (key,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (key, blob))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _read(self, sql: str, *arguments: str) -> list[tuple[Any, ...]]:
        try:
            with self._one_at_a_time:
                return self._db.execute(sql, arguments).fetchall()
        except sqlite3.Error as e:
            raise _fault(e, f"cannot read the store {self.path}", "is the disk sound?") from e


class ReadOnlyStore:
    """What a store held when it was last written, for commands that only look: nothing is changed.

    Raises `StoreLocked` while a process holds the file, `StorageError` for one that cannot be read. `read` it
    quickly and `close` it: a process that wants to open the store waits only so long.
    """

    def __init__(self, path: Path, *, patience_s: float = 0.2) -> None:
        """`patience_s`: how long to wait for a lock."""
        self.path = path
        try:
            if not path.exists():
                raise StorageError(f"there is no store {path}", remedy="has the coordinator ever run?")
            # Not mode=ro: after a kill the write-ahead log must be read too, and that needs a file beside it.
            self._db = sqlite3.connect(path, isolation_level=None, timeout=patience_s)
            self._db.execute("PRAGMA query_only=ON")
            self._db.execute("BEGIN")
            self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except (sqlite3.Error, OSError) as e:
            raise _fault(e, f"cannot read the store {path}", "is it readable?") from e

    def get(self, key: str) -> bytes | None:
        """The blob under `key`, or None."""
        row = self._read("SELECT value FROM entries WHERE key = ?", key)
        return bytes(row[0][0]) if row else None

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with `prefix`, in sorted order."""
        rows = self._read(
            "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key", prefix, prefix + "\x7f"
        )
        return iter([str(row[0]) for row in rows])

    def damage(self) -> str | None:
        """What SQLite finds wrong with the file, or None. Reads all of it."""
        found = [str(row[0]) for row in self._read("PRAGMA quick_check(1)")]
        return None if found == ["ok"] else "; ".join(found)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _read(self, sql: str, *arguments: str) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, arguments).fetchall()
        except sqlite3.Error as e:
            raise _fault(e, f"cannot read the store {self.path}", "is the disk sound?") from e


def _fault(e: sqlite3.Error | OSError, what: str, remedy: str) -> StorageError:
    """The error for a fault, by SQLite's result code (sqlite.org/rescode.html) or the system's."""
    code = getattr(e, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreLocked(
            f"{what} ({e})", remedy="another process holds it: end that one, or use another store"
        )
    if code == sqlite3.SQLITE_FULL or getattr(e, "errno", None) == errno.ENOSPC:
        return DiskFull(f"{what} ({e})", remedy="make room on the disk and start again")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamaged(f"{what} ({e})", remedy="restore the file from a copy, or move it away")
    return StorageError(f"{what} ({e})", remedy=remedy)
