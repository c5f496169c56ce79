"""Durable key-value storage: all of a write or none of it, on disk before the call returns."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

from laconic.errors import DiskFull, StorageError, StoreDamaged, StoreLocked, StoreReadOnly

FILE_FORMAT: Final = 2
"""Of the SQLite file, as its `user_version` has it; docs/spec/store.md tells what each is."""


_ROWS: Final = 4096
"""Entries of one statement: SQLite takes 32,766 variables."""


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
        # A copy: another thread may write meanwhile.
        return iter(sorted(k for k in list(self._entries) if k.startswith(prefix)))

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

    Every entry has a checksum: SQLite finds a damaged page where its structure is, not where the data are.

    Raises `StorageError` wherever SQLite reports a fault, `StoreDamaged` for an entry that is not what was
    written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._one_at_a_time = threading.Lock()
        try:
            _make_folder(path.parent)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                # Its lock would keep out whoever tries again.
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as e:
            raise _fault(e, f"cannot open the store {path}", "is the folder writable?") from e

    def get(self, key: str) -> bytes | None:
        row = self._read("SELECT value, crc32 FROM entries WHERE key = ?", key)
        return _checked(key, row[0], self.path) if row else None

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

    def damaged(self) -> list[str]:
        """The keys of entries that are not what was written. Reads all of the file, twice.

        Raises `StoreDamaged` where the file's structure is not sound.
        """
        # Unlike quick_check it sees an entry that the index has under another key.
        found = self._read("PRAGMA integrity_check(1)")
        if found != [("ok",)]:
            raise StoreDamaged(f"the store {self.path} ({found[0][0]})", remedy=_DAMAGED)
        with self._one_at_a_time:
            return _wrong(self._db, self.path)

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in."""
        self._db.close()

    def _prepare(self) -> None:
        os.chmod(self.path, 0o600)
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._upgrade()

    def _upgrade(self) -> None:
        """Make the table, or give one that an earlier release made its checksums; all of it or nothing."""
        if _format_of(self._db, self.path) == FILE_FORMAT:
            return
        self._db.create_function("crc32_of", 2, _crc32, deterministic=True)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone():
                self._db.execute("ALTER TABLE entries ADD COLUMN crc32 INTEGER NOT NULL DEFAULT 0")
                self._db.execute("UPDATE entries SET crc32 = crc32_of(key, value)")
            else:
                self._db.execute(
                    "CREATE TABLE entries"
                    " (key TEXT PRIMARY KEY, value BLOB NOT NULL, crc32 INTEGER NOT NULL DEFAULT 0)"
                )
            self._db.execute(f"PRAGMA user_version = {FILE_FORMAT}")
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _write(self, entries: Mapping[str, bytes | None]) -> None:
        gone = [(key,) for key, blob in entries.items() if blob is None]
        kept = [(key, blob, _crc32(key, blob)) for key, blob in entries.items() if blob is not None]
        if not gone and 0 < len(kept) <= _ROWS:
            # A statement is a transaction of its own, and while it runs so do Python's other threads.
            self._put(kept)
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("DELETE FROM entries WHERE key = ?", gone)
            for i in range(0, len(kept), _ROWS):
                self._put(kept[i : i + _ROWS])
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _put(self, rows: Sequence[tuple[str, bytes, int]]) -> None:
        places = ", ".join(["(?, ?, ?)"] * len(rows))
        self._db.execute(f"INSERT OR REPLACE INTO entries VALUES {places}", [*chain.from_iterable(rows)])

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
            self._has_checksums = _format_of(self._db, path) == FILE_FORMAT
        except (sqlite3.Error, OSError) as e:
            raise _fault(e, f"cannot read the store {path}", "is it readable?") from e

    def get(self, key: str) -> bytes | None:
        """The blob under `key`, or None."""
        if not self._has_checksums:
            row = self._read("SELECT value FROM entries WHERE key = ?", key)
            return bytes(row[0][0]) if row else None
        row = self._read("SELECT value, crc32 FROM entries WHERE key = ?", key)
        return _checked(key, row[0], self.path) if row else None

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with `prefix`, in sorted order."""
        rows = self._read(
            "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key", prefix, prefix + "\x7f"
        )
        return iter([str(row[0]) for row in rows])

    def damage(self) -> str | None:
        """What is wrong with the file or its entries, or None. Reads all of it."""
        found = [str(row[0]) for row in self._read("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            return "; ".join(found)
        wrong = _wrong(self._db, self.path) if self._has_checksums else []
        return f"not what was written: {', '.join(wrong[:10])}" if wrong else None

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _read(self, sql: str, *arguments: str) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, arguments).fetchall()
        except sqlite3.Error as e:
            raise _fault(e, f"cannot read the store {self.path}", "is the disk sound?") from e


_DAMAGED: Final = "restore the file from a copy, or move it away"
_UNREADABLE: Final = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_DATA, sqlite3.SQLITE_IOERR_CORRUPTFS)
"""A part of the file that the disk does not give back."""


def _crc32(key: str, value: bytes) -> int:
    """The checksum of an entry: of its key, then its value (CRC-32 as in RFC 1952, section 8)."""
    return zlib.crc32(value, zlib.crc32(key.encode()))


def _checked(key: str, row: tuple[Any, ...], path: Path) -> bytes:
    """The value of a row of value and checksum, if it is what was written. Raises `StoreDamaged`."""
    value, checksum = row
    if not isinstance(value, bytes) or _crc32(key, value) != checksum:
        raise StoreDamaged(f"entry {key} of the store {path} is not what was written", remedy=_DAMAGED)
    return value


def _wrong(db: sqlite3.Connection, path: Path) -> list[str]:
    """The keys of entries that are not what was written."""
    wrong: list[str] = []
    try:
        for key, value, checksum in db.execute("SELECT CAST(key AS BLOB), value, crc32 FROM entries"):
            # A damaged key need not be text.
            name = bytes(key).decode(errors="replace")
            try:
                _checked(name, (value, checksum), path)
            except StoreDamaged:
                wrong.append(name)
    except sqlite3.Error as e:
        raise _fault(e, f"cannot read the store {path}", "is the disk sound?") from e
    return wrong


def _format_of(db: sqlite3.Connection, path: Path) -> int:
    """The format of a file, 0 of an empty or an old one. Raises `StorageError` for a newer one."""
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if found > FILE_FORMAT:
        raise StorageError(
            f"format of the store {path}",
            value=found,
            limit=FILE_FORMAT,
            remedy="run the release that wrote it",
        )
    return found


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, on the disk for certain: a store in it is of no use without."""
    if folder.exists():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Have made, renamed and removed entries of a folder on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _fault(e: sqlite3.Error | OSError, what: str, remedy: str) -> StorageError:
    """The error for a fault, by SQLite's result code (sqlite.org/rescode.html) or the system's."""
    extended = getattr(e, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreLocked(
            f"{what} ({e})", remedy="another process holds it: end that one, or use another store"
        )
    if code == sqlite3.SQLITE_FULL or getattr(e, "errno", None) == errno.ENOSPC:
        return DiskFull(f"{what} ({e})", remedy="make room on the disk and start again")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or extended in _UNREADABLE:
        return StoreDamaged(f"{what} ({e})", remedy=_DAMAGED)
    if code == sqlite3.SQLITE_READONLY or getattr(e, "errno", None) == errno.EROFS:
        return StoreReadOnly(f"{what} ({e})", remedy="mount the file system for writing")
    return StorageError(f"{what} ({e})", remedy=remedy)
