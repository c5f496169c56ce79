"""Disks that are full, may not be written, or give back something else: the device goes on, and says so."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fleet import BUNDLE, SCHEMA, LinearLearner
from lives import Lives
from small_disks import SmallDisk

from laconic.edge_sdk import Device, client
from laconic.edge_sdk.records import restore
from laconic.edge_sdk.salvage import open_store
from laconic.edge_sdk.supervisor import Pauses, keep_alive
from laconic.node import Note
from laconic.runtime import Bundle
from laconic.training import prepare
from laconic.training.models import digits_cnn

NOBODY = "mqtt://127.0.0.1:9"


def check(path: Path) -> None:
    """What is on the disk is whole."""
    store, note = open_store(path)
    assert note is None
    disk = restore(store, SCHEMA, bundle=BUNDLE, initial=LinearLearner(0).initial)
    assert (disk.damaged, disk.foreign) == ((), False)
    store.close()


def test_a_full_disk_pauses_a_device_until_there_is_room(small_disk: SmallDisk) -> None:
    path = small_disk.folder / "d.db"
    lives = Lives(path)

    async def scene() -> None:
        await lives.more("committed")
        small_disk.fill()
        await lives.more("storage")
        await lives.more("storage")
        (first, *_) = lives.heard("storage")
        assert first.fields["error"] == "DiskFull"
        assert lives.engine is not None
        assert lives.engine.model.weights.shape == (SCHEMA.size,), "there is a model to predict with"
        check_copy(path)
        small_disk.make_room()
        await lives.more("committed")
        await lives.more("committed")

    lives.play(scene)
    check(path)


def check_copy(path: Path) -> None:
    """As `check`, while the disk is full: elsewhere."""
    elsewhere = path.parent.parent / "copy"
    elsewhere.mkdir()
    for part in path.parent.glob("d.db*"):
        (elsewhere / part.name).write_bytes(part.read_bytes())
    check(elsewhere / path.name)


def test_a_read_only_file_system_pauses_a_device_until_it_may_be_written(small_disk: SmallDisk) -> None:
    lives = Lives(small_disk.folder / "d.db")

    async def scene() -> None:
        await lives.more("committed")
        # While a file is open for writing a file system cannot be remounted: the device is between two lives.
        small_disk.fill()
        await lives.more("storage")
        await lives.until(lambda: not_in_use(small_disk), "a moment between two lives")
        await lives.until(lambda: lives.heard("storage")[-1].fields["error"] == "StoreReadOnly", "read-only")
        small_disk.remount("rw")
        small_disk.make_room()
        await lives.more("committed")

    lives.play(scene)
    check(small_disk.folder / "d.db")


def not_in_use(disk: SmallDisk) -> bool:
    try:
        disk.remount("ro")
    except Exception:
        return False
    return True


def test_a_device_that_starts_on_a_full_disk_predicts(
    small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "keep_alive", partial(keep_alive, pauses=Pauses(0.05, 0.1)))
    x = np.zeros((4, 1, 8, 8), np.float32)
    heard: list[Note] = []
    small_disk.fill()
    device = Device(
        "d",
        broker=NOBODY,
        bundle=Bundle.read(prepare(digits_cnn(0))),
        data=(x, np.zeros(4, np.int64)),
        store=small_disk.folder / "d.db",
        on_note=lambda note, now: heard.append(note),
    )
    with device:
        assert device.predict(x).shape == (4, 10)
        assert next(n.fields["error"] for n in heard if n.kind == "storage") == "DiskFull"
        small_disk.make_room()
