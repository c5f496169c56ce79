"""Upgrades of a coordinator's store, one step for each format there has been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from laconic.errors import StorageError
from laconic.node import StoreView
from laconic.storage import Store

FORMAT: Final = 2
KEY: Final = "format"


def upgrade(store: Store, cohort: str) -> int:
    """Bring `store` to the newest format, each step in one write; returns the format that it had (0: empty).

    `cohort`: whose campaign the entries of format 1 are, which held a single one. Raises
    `StorageError` for a store that a newer coordinator wrote.
    """
    found = format_of(store)
    if found > FORMAT:
        raise _newer(found)
    if not found:
        store.write({KEY: str(FORMAT).encode()})
    for step in range(max(found, 1), FORMAT if found else 0):
        _STEPS[step](store, cohort)
    return found


def check_format(store: StoreView) -> None:
    """Whether `store` can be read as it is. Raises `StorageError` for one of another format."""
    found = format_of(store)
    if found > FORMAT:
        raise _newer(found)
    if 0 < found < FORMAT:
        raise StorageError(
            "format of the store",
            value=found,
            limit=FORMAT,
            remedy="start the coordinator once: it brings the store to the newest format",
        )


def _newer(found: int) -> StorageError:
    return StorageError(
        "format of the store", value=found, limit=FORMAT, remedy="run the coordinator that wrote it"
    )


def format_of(store: StoreView) -> int:
    """The format that a store says it has; 1 if it says nothing but is not empty, 0 if it is."""
    said = store.get(KEY)
    if said is not None:
        return int(said) if said.isdigit() else FORMAT + 1
    return 1 if next(store.keys(""), None) is not None else 0


def _divide(store: Store, cohort: str) -> None:
    """1 to 2: what belongs to a campaign gets a prefix with its cohort; device records stay."""
    entries: dict[str, bytes | None] = {KEY: b"2"}
    for key in store.keys(""):
        if not key.startswith("device/"):
            entries[f"c/{cohort}/{key}"] = store.get(key)
            entries[key] = None
    store.write(entries)


_STEPS: Final[dict[int, Callable[[Store, str], None]]] = {1: _divide}
"""By the format that a step starts from."""
