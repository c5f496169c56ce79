"""What a campaign finds in its part of the store when the process begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from laconic.compression import Piece
from laconic.coordinator.aggregation.plausible import NormHistory
from laconic.coordinator.campaign import Committed
from laconic.coordinator.staleness import pieces_of
from laconic.errors import StorageError, WireError
from laconic.node import StoreView
from laconic.schema import Schema

T = TypeVar("T", bound=msgspec.Struct)

_REMEDY = "restore the store from a copy"


def record(store: StoreView, key: str, kind: type[T]) -> T | None:
    """What is saved under `key`, if anything is. Raises `StorageError` for what cannot be read."""
    saved = store.get(key)
    if saved is None:
        return None
    try:
        return msgspec.msgpack.decode(saved, type=kind)
    except msgspec.DecodeError as e:
        raise StorageError(f"record {key} ({e})", remedy=_REMEDY) from e


def norms(store: StoreView) -> NormHistory:
    """How long updates have been. Raises `StorageError` for what cannot be."""
    history = record(store, "norms", NormHistory) or NormHistory()
    if not history.sound:
        raise StorageError("record norms", value=history, remedy=_REMEDY)
    return history


def committed(store: StoreView, schema: Schema) -> Iterator[tuple[Committed, tuple[Piece, ...], bool]]:
    """Every update that is in no version yet, as it is folded, and whether it came late.

    Those of the open round first. Raises `StorageError` for one that cannot be read.
    """
    for key in (*store.keys("update/"), *store.keys("late/")):
        try:
            update = msgspec.msgpack.decode(store.get(key) or b"", type=Committed)
            change = pieces_of(update.frame, schema, update.discount)
        except (msgspec.DecodeError, WireError) as e:
            raise StorageError(f"committed update {key} ({e})", remedy=_REMEDY) from e
        yield update, change, key.startswith("late/")
