"""Every format that a coordinator's store has had can be brought to the newest."""

from __future__ import annotations

import pytest

from laconic.coordinator.migrations import upgrade
from laconic.errors import StorageError
from laconic.storage import MemoryStore


def everything(store: MemoryStore) -> dict[str, bytes | None]:
    return {key: store.get(key) for key in store.keys("")}


def test_an_empty_store_is_of_the_newest_format() -> None:
    store = MemoryStore()
    assert upgrade(store, "c") == 0
    assert everything(store) == {"format": b"2"}


def test_format_1_becomes_the_compartment_of_its_cohort() -> None:
    store = MemoryStore()
    store.write({"progress": b"p", "model/00000001": b"m", "device/d": b"d", "update/d": b"u"})
    assert upgrade(store, "houses") == 1
    upgraded = {
        "format": b"2",
        "device/d": b"d",
        "c/houses/progress": b"p",
        "c/houses/model/00000001": b"m",
        "c/houses/update/d": b"u",
    }
    assert everything(store) == upgraded
    assert upgrade(store, "houses") == 2
    assert everything(store) == upgraded


@pytest.mark.parametrize("said", [b"3", b"\xff", b""])
def test_the_store_of_a_newer_coordinator_is_refused(said: bytes) -> None:
    store = MemoryStore()
    store.write({"format": said, "progress": b"p"})
    with pytest.raises(StorageError, match="format of the store"):
        upgrade(store, "c")
    assert store.get("progress") == b"p"
