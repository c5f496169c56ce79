"""Opens a device's store; a damaged one is set aside, and what can be trusted of it goes on in a new one.

What a device holds can be fetched or learnt again: stopping for it would cost more than it is worth.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from laconic.edge_sdk.records import ENTRIES
from laconic.errors import StorageError, StoreDamaged
from laconic.node import Note
from laconic.storage import SqliteStore, sync_folder

KEPT: Final = 2
"""Damaged files that are kept for whoever wants to look at them, the newest."""
_LOST: Final = b""
"""In place of an entry that cannot be trusted: `records.restore` finds it damaged, and says so."""


def open_store(path: Path) -> tuple[SqliteStore, Note | None]:
    """The store, and what to say of it if it was damaged.

    Of a file whose structure is sound, what has the right checksum is taken over; of another one the diary,
    the model and what is private to the learner, if they can be read.

    Raises `StorageError` for one that cannot be opened for another reason.
    """
    fresh = _beside(path, ".new")
    try:
        if fresh.exists():
            # An earlier life had made its mind up, and was ended before it was through.
            _replace(path, fresh)
        store, found = _examine(path)
        if found is None:
            assert store is not None
            return store, None
        if store is not None:
            store.close()
        _write(fresh, found.kept)
        aside = _replace(path, fresh)
    except OSError as e:
        raise StorageError(f"cannot set {path} aside ({e})", remedy="is the folder writable?") from e
    return SqliteStore(path), Note("damaged", {"what": ["store"], "why": found.why, "kept": aside.name})


@dataclass(frozen=True)
class _Damage:
    why: str
    kept: dict[str, bytes | None]
    """What goes into the new file."""


def _examine(path: Path) -> tuple[SqliteStore | None, _Damage | None]:
    """The store, if it can be opened, and what is wrong with it."""
    store: SqliteStore | None = None
    try:
        store = SqliteStore(path)
        if not (wrong := store.damaged()):
            return store, None
        return store, _Damage(f"not what was written: {', '.join(wrong)}"[:500], _right(store, set(wrong)))
    except StoreDamaged as e:
        return store, _Damage(str(e)[:500], {} if store is None else _readable(store))


def _right(store: SqliteStore, wrong: set[str]) -> dict[str, bytes | None]:
    """The entries of a sound file: all of one moment, the wrong ones as lost."""
    kept: dict[str, bytes | None] = dict.fromkeys(wrong & ENTRIES, _LOST)
    kept |= {key: store.get(key) for key in store.keys("") if key not in wrong}
    return kept


def _readable(store: SqliteStore) -> dict[str, bytes | None]:
    """What stands for itself in a file that is not sound; what must be of one moment counts as lost."""
    kept: dict[str, bytes | None] = {"outbox": _LOST}
    for key in ("diary", "model", "private"):
        try:
            kept[key] = store.get(key)
        except StorageError:
            kept[key] = _LOST
    return kept


def _write(fresh: Path, kept: dict[str, bytes | None]) -> None:
    """Make the new file: it has its name once it is complete."""
    _prune(fresh.with_suffix(""), KEPT - 1)
    making = _beside(fresh, ".making")
    for left in (making, _beside(making, "-wal")):
        left.unlink(missing_ok=True)
    store = SqliteStore(making)
    try:
        store.write(kept)
    finally:
        store.close()
    _rename(making, fresh)


def _replace(path: Path, fresh: Path) -> Path:
    """Put the new file in the place of the damaged one; may be done again after a kill anywhere in it.

    The log goes first: beside the new file it would be taken for its own.
    """
    number = max((n for n, _ in _aside(path)), default=0) + 1
    aside = _beside(path, f".damaged-{number}")
    for old, new in ((_beside(path, "-wal"), _beside(aside, "-wal")), (path, aside)):
        if old.exists():
            _rename(old, new)
    _rename(fresh, path)
    _prune(path, KEPT)
    return aside


def _prune(path: Path, keep: int) -> None:
    found = sorted(_aside(path), reverse=True)
    for _, old in found[keep:]:
        for part in (old, _beside(old, "-wal")):
            part.unlink(missing_ok=True)


def _aside(path: Path) -> list[tuple[int, Path]]:
    """The damaged files that are there, with their numbers."""
    found = path.parent.glob(f"{glob.escape(path.name)}.damaged-*")
    numbered = ((p.name.rpartition("-")[2], p) for p in found)
    # Digits of other scripts, which `isdigit` takes too, are not ours.
    return [(int(number), p) for number, p in numbered if number.isascii() and number.isdigit()]


def _rename(old: Path, new: Path) -> None:
    os.replace(old, new)
    sync_folder(new.parent)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
