"""A folder on a disk that can lose power: what was not synced may be gone, or half there.

A process runs with a library preloaded (`power_loss.c`) that logs what it does to the files below the folder.
When it is dead, `lose_power` sets the folder to what a disk that does not lie could hold after a loss of
power at that moment, as a random generator has it:

* what was written before a successful fsync or fdatasync of its file is there;
* of every sector written since, any of the states since the last sync is there; sizes likewise;
* of a folder's entries (files made, renamed, removed) since its last sync, the first so many are there: file
  systems keep the order of such changes, but a synced file in an unsynced folder may still be gone.

Folders themselves are taken to be there once they are made.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent / "power_loss.c"
_HEADER: Final = struct.Struct("=4sIIIQ")
FATES: Final = ("scattered", "torn", "nothing", "everything")
"""What may become of unsynced writes: any sector for itself; the first so many writes, the last of them torn;
none; all of them."""
SECTORS: Final = (512, 4096)
"""Bytes that a disk writes whole."""


class Kind(IntEnum):
    """As in `power_loss.c`."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    UNLINK = 4
    RENAME = 5
    SYNC = 6
    SYNC_FOLDER = 7


@dataclass(frozen=True, slots=True)
class Record:
    """One call that a process has made; `rest` is data, or the new name of what was renamed."""

    kind: Kind
    path: str
    offset: int
    rest: bytes


@cache
def library() -> Path:
    """The compiled library. Raises `FileNotFoundError` where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler: no cc on the PATH (Debian: apt install gcc libc6-dev)")
    made = Path(tempfile.mkdtemp(prefix="laconic-power-")) / "power_loss.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(SOURCE)], check=True)
    return made


def records(log: bytes) -> Iterator[Record]:
    """The records of a log; one that the end of its process has cut short is left out."""
    at = 0
    while at + _HEADER.size <= len(log):
        magic, kind, path_bytes, rest_bytes, offset = _HEADER.unpack_from(log, at)
        if magic != b"PWR1":
            raise ValueError(f"no record at byte {at} of the log")
        rest = at + _HEADER.size + path_bytes
        end = rest + rest_bytes
        if end > len(log):
            return
        yield Record(Kind(kind), os.fsdecode(log[rest - path_bytes : rest]), offset, log[rest:end])
        at = end


@dataclass
class _File:
    """What is on the disk for certain, and what has been done since."""

    durable: bytes
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offset and data written; without data, the new size."""

    def now(self) -> bytes:
        """As its process sees it."""
        content = bytearray(self.durable)
        for offset, data in self.since:
            _apply(content, offset, data)
        return bytes(content)

    def sync(self) -> None:
        self.durable, self.since = self.now(), []

    def after_loss(self, chance: random.Random, fate: str, sector: int) -> bytes:
        """As a disk may hold it."""
        since = self.since
        if fate == "nothing":
            since = []
        elif fate == "torn" and since:
            since = since[: chance.randint(1, len(since))]
            offset, data = since[-1]
            if data:
                # Sectors are whole wherever the write begins.
                cut = (offset // sector + chance.randint(0, len(data) // sector + 1)) * sector - offset
                since = [*since[:-1], (offset, data[: max(0, cut)])]
        if fate != "scattered":
            return _File(self.durable, since).now()
        return self._scattered(chance, sector)

    def _scattered(self, chance: random.Random, sector: int) -> bytes:
        content, sizes = bytearray(self.durable), [len(self.durable)]
        states: dict[int, list[bytes]] = {}
        for offset, data in self.since:
            before = len(content)
            first, last = offset // sector, max(before, offset + len(data or b"")) // sector
            if data is not None:
                last = (offset + len(data)) // sector
            for i in range(first, last + 1):
                states.setdefault(i, [bytes(content[i * sector : (i + 1) * sector])])
            _apply(content, offset, data)
            for i in range(first, last + 1):
                states[i].append(bytes(content[i * sector : (i + 1) * sector]))
            sizes.append(len(content))
        left = bytearray(self.durable)
        for i, versions in states.items():
            _apply(left, i * sector, chance.choice(versions).ljust(sector, b"\0"))
        size = chance.choice(sizes)
        _apply(left, size, None)
        return bytes(left)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    end = offset if data is None else offset + len(data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset:end] = data


class PowerDisk:
    """One folder. `environment` goes into the processes that live on it, one after another."""

    def __init__(self, folder: Path, log: Path, *, sync_s: float = 0.0) -> None:
        """`log`: a file outside of `folder`; `sync_s`: how long a sync takes, as on a memory card."""
        self.folder, self.log = folder.resolve(), log
        self.environment = {
            "LD_PRELOAD": str(library()),
            "POWER_FOLDER": str(self.folder),
            "POWER_LOG": str(log),
            "POWER_SYNC_US": str(round(1e6 * sync_s)),
        }
        self.begin()

    def begin(self) -> None:
        """What the folder holds now is on the disk for certain; nothing has happened since."""
        self._kept = {str(p): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        self.log.unlink(missing_ok=True)

    def agrees(self) -> bool:
        """Whether the log explains what the folder holds, as it must once a process has ended by itself."""
        seen, _ = self._replay()
        there = {str(p): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        return {path: file.now() for path, file in seen.items()} == there

    def lose_power(self, chance: random.Random) -> str:
        """Set the folder to what a loss of power may leave of a dead process's work; which fate it took."""
        fate, sector = chance.choice(FATES), chance.choice(SECTORS)
        seen, changes = self._replay()
        left = self._entries_left(chance, fate, seen, changes)
        content = {path: file.after_loss(chance, fate, sector) for path, file in left.items()}
        for path in self.folder.rglob("*"):
            if path.is_file():
                path.unlink()
        for name, data in content.items():
            Path(name).write_bytes(data)
            os.chmod(name, 0o600)
        self.begin()
        return fate

    def unsynced(self) -> int:
        """How many changes a loss of power now could undo."""
        seen, changes = self._replay()
        return sum(len(f.since) for f in seen.values()) + sum(len(c) for c in changes.values())

    def _entries_left(
        self, chance: random.Random, fate: str, seen: dict[str, _File], changes: dict[str, list[_Change]]
    ) -> dict[str, _File]:
        """Undo entries: all changes of a folder after the first so many, the last first."""
        left = dict(seen)
        for done in changes.values():
            kept = {"nothing": 0, "everything": len(done)}.get(fate, chance.randint(0, len(done)))
            for change in reversed(done[kept:]):
                for name, file in change:
                    left.pop(name, None)
                    if file is not None:
                        left[name] = file
        return left

    def _replay(self) -> tuple[dict[str, _File], dict[str, list[_Change]]]:
        """Files by name as the process saw them, and by folder the entries' changes since its last sync."""
        files = {name: _File(data) for name, data in self._kept.items()}
        changes: dict[str, list[_Change]] = {}
        for r in records(self.log.read_bytes() if self.log.exists() else b""):
            around = os.path.dirname(r.path)
            match r.kind:
                case Kind.CREATE:
                    changes.setdefault(around, []).append([(r.path, None)])
                    files[r.path] = _File(b"")
                case Kind.UNLINK:
                    changes.setdefault(around, []).append([(r.path, files.pop(r.path))])
                case Kind.RENAME:
                    new = os.fsdecode(r.rest)
                    changes.setdefault(around, []).append([(new, files.get(new)), (r.path, files[r.path])])
                    files[new] = files.pop(r.path)
                case Kind.WRITE:
                    files[r.path].since.append((r.offset, r.rest))
                case Kind.TRUNCATE:
                    files[r.path].since.append((r.offset, None))
                case Kind.SYNC:
                    files[r.path].sync()
                case Kind.SYNC_FOLDER:
                    changes.pop(r.path, None)
        return files, changes


_Change = list[tuple[str, _File | None]]
"""What stood under which names before."""
