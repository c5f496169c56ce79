"""A damaged store of a device: what can be trusted goes on, the rest is said to be lost, nothing stops."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest

from laconic.compression import PRESETS, decode, encode
from laconic.compression.gate import GateState
from laconic.edge_sdk import salvage
from laconic.edge_sdk.records import (
    ENTRIES,
    Diary,
    Held,
    Outbox,
    restore,
    save_held,
    save_private,
    save_vector,
)
from laconic.edge_sdk.salvage import KEPT, open_store
from laconic.errors import StorageError
from laconic.protocol.identity import weights_hash
from laconic.schema import Schema, TensorSpec
from laconic.storage import SqliteStore

SCHEMA = Schema((TensorSpec("w", (40, 50)),))
INITIAL = np.zeros(SCHEMA.size, np.float32)
RNG = np.random.default_rng(0)
WEIGHTS, RESIDUAL = RNG.normal(size=(2, SCHEMA.size)).astype(np.float32)
FRAME = encode(RESIDUAL, SCHEMA, PRESETS["dense8"], RNG).frame
SAID = decode(FRAME, SCHEMA, limit_bytes=4 * SCHEMA.size)
OUTBOX = Outbox("u" * 16, "t" * 16, b"fin", FRAME)
DIARY = Diary(bundle="b" * 16, answered="t" * 16, gate=GateState(), bytes_up=123)


def filled(path: Path) -> dict[str, bytes]:
    """A device's store with an update on its way."""
    entries = {
        "diary": msgspec.msgpack.encode(DIARY),
        "model": save_held(Held(3, weights_hash(WEIGHTS, SCHEMA), WEIGHTS)),
        "residual": save_vector(RESIDUAL),
        "private": save_private(b"mine" * 50),
        "outbox": msgspec.msgpack.encode(OUTBOX),
        "checkpoint": b"how far" * 50,
        "piece/abc/000001": b"piece" * 100,
    }
    store = SqliteStore(path)
    store.write(dict(entries))
    store.close()
    return entries


def tamper(path: Path, key: str) -> None:
    """Another value under a key, with the old checksum."""
    db = sqlite3.connect(path, isolation_level=None)
    value = bytearray(db.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()[0])
    value[len(value) // 2] ^= 16
    db.execute("UPDATE entries SET value = ? WHERE key = ?", (bytes(value), key))
    db.close()


def aside(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"d.db", "d.db-wal"}


def restored(store: SqliteStore):  # type: ignore[no-untyped-def]
    return restore(store, SCHEMA, bundle=DIARY.bundle, initial=INITIAL)


def test_a_sound_store_is_opened_as_it_is(tmp_path: Path) -> None:
    entries = filled(tmp_path / "d.db")
    store, note = open_store(tmp_path / "d.db")
    assert note is None
    assert {k: store.get(k) for k in store.keys("")} == entries
    assert aside(tmp_path) == set()
    store.close()


@pytest.mark.parametrize("key", [*sorted(ENTRIES - {"echo"}), "piece/abc/000001"])
def test_one_damaged_entry_costs_no_other(tmp_path: Path, key: str) -> None:
    path = tmp_path / "d.db"
    entries = filled(path)
    tamper(path, key)
    store, note = open_store(path)
    assert note is not None
    assert (note.kind, note.fields["kept"]) == ("damaged", "d.db.damaged-1")
    assert key in str(note.fields["why"])
    assert aside(tmp_path) == {"d.db.damaged-1"}
    left = {k: store.get(k) for k in store.keys("")}
    assert {k: v for k, v in left.items() if k != key} == {k: v for k, v in entries.items() if k != key}
    found = restored(store)
    assert (key in found.damaged) == (key in ENTRIES - {"checkpoint"}), "that is for who goes on with it"
    assert (found.held.version == 3) == (key not in ("model", "diary"))
    assert (found.diary.bytes_up == 123) == (key != "diary")
    store.close()
    again, note = open_store(path)
    assert note is None
    again.close()


def test_an_update_on_its_way_stands_for_a_lost_residual(tmp_path: Path) -> None:
    """Recorded: with zeros in its place the next update took back what this one had brought."""
    filled(tmp_path / "d.db")
    tamper(tmp_path / "d.db", "residual")
    store, _ = open_store(tmp_path / "d.db")
    found = restored(store)
    assert found.outbox == OUTBOX
    assert found.residual.values.tobytes() == SAID.tobytes()
    assert not found.residual.committed(SAID).values.any()
    store.close()


def test_with_a_lost_update_goes_the_residual_that_holds_it(tmp_path: Path) -> None:
    """The coordinator may have committed it: then it would be counted twice."""
    filled(tmp_path / "d.db")
    tamper(tmp_path / "d.db", "outbox")
    store, _ = open_store(tmp_path / "d.db")
    found = restored(store)
    assert found.outbox is None
    assert set(found.damaged) == {"outbox", "residual"}
    assert not found.residual.values.any()
    store.close()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_overwritten_the_store_opens_and_tells_the_truth(tmp_path: Path, seed: int) -> None:
    path, chance = tmp_path / "d.db", random.Random(seed)
    entries = filled(path)
    content = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randrange(len(content)), chance.choice((1, 16, 512, 5000))
        content[at : at + size] = chance.randbytes(size)[: len(content) - at]
    path.write_bytes(content)
    store, note = open_store(path)
    assert all(store.get(k) in (entries.get(k), b"") for k in store.keys(""))
    found = restored(store)
    if note is None:
        assert found.damaged == ()
        assert found.residual.values.tobytes() == RESIDUAL.tobytes()
    elif found.outbox is None:
        assert not found.residual.values.any()
    store.write({"diary": b"anew"})
    store.close()


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.db"
    path.write_bytes(content)
    store, note = open_store(path)
    assert note is not None
    assert list(store.keys("")) == []
    assert (tmp_path / "d.db.damaged-1").read_bytes() == content
    store.close()


def test_only_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    for _ in range(KEPT + 2):
        path.write_bytes(b"this is no database" * 100)
        store, _ = open_store(path)
        store.close()
    assert aside(tmp_path) == {f"d.db.damaged-{n}" for n in (KEPT + 1, KEPT + 2)}


def test_a_store_may_have_any_name_and_any_neighbours(tmp_path: Path) -> None:
    """Recorded: of a name with brackets the file that was set aside before was lost; a neighbour that ends in
    a digit of another kind ended the device."""
    path = tmp_path / "d[1].db"
    (tmp_path / "d[1].db.damaged-\u00b2").touch()
    for _ in range(2):
        path.write_bytes(b"no database" * 400)
        open_store(path)[0].close()
    assert {"d[1].db.damaged-1", "d[1].db.damaged-2"} <= {file.name for file in tmp_path.iterdir()}


def test_a_kill_in_the_middle_of_it_loses_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended before each of its renamings, it is found half done by the next life."""
    for steps in range(4):
        folder = tmp_path / str(steps)
        folder.mkdir()
        path = folder / "d.db"
        entries = filled(path)
        tamper(path, "private")
        left = [steps]

        def rename(old: Path, new: Path, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            old.replace(new)

        with monkeypatch.context() as patched:
            patched.setattr(salvage, "_rename", rename)
            try:
                store, _ = open_store(path)
                store.close()
            except KeyboardInterrupt:
                pass
        store, _ = open_store(path)
        assert {k: store.get(k) for k in store.keys("")} == {**entries, "private": b""}
        store.close()


def test_what_is_not_damage_is_not_treated_as_such(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    filled(path)
    store = SqliteStore(path)
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="release"):
        open_store(path)
    assert path.read_bytes() == before
    assert aside(tmp_path) == set()
