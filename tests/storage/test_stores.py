"""One contract for every store; SQLite's promises under kill -9, damage, locks and a full disk."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laconic.errors import StorageError, StoreDamaged
from laconic.storage import FILE_FORMAT, MemoryStore, ReadOnlyStore, SqliteStore, Store
from often import examples

KEYS = st.text("abc/019-", min_size=1, max_size=6)
WRITES = st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=50), max_size=6), max_size=8)


@pytest.fixture(params=["memory", "sqlite"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    made: list[SqliteStore] = []

    def new() -> Store:
        if request.param == "memory":
            return MemoryStore()
        made.append(SqliteStore(tmp_path / f"{len(made)}.db"))
        return made[-1]

    yield new
    for store in made:
        store.close()


@settings(
    max_examples=examples(25), deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(writes=WRITES, prefix=KEYS)
def test_a_store_is_a_dictionary(
    new_store: Callable[[], Store], writes: list[dict[str, bytes | None]], prefix: str
) -> None:
    store, model = new_store(), dict[str, bytes]()
    for entries in writes:
        store.write(entries)
        model |= {k: v for k, v in entries.items() if v is not None}
        model = {k: v for k, v in model.items() if entries.get(k, b"") is not None}
    assert list(store.keys()) == sorted(model)
    for cut in (prefix, prefix[:1], prefix + "/"):
        assert list(store.keys(cut)) == sorted(k for k in model if k.startswith(cut))
    for key in (*model, prefix):
        assert store.get(key) == model.get(key)


def test_keys_may_be_deleted_while_they_are_listed(new_store: Callable[[], Store]) -> None:
    store = new_store()
    store.write({f"k/{i}": b"x" for i in range(10)})
    for key in store.keys("k/"):
        store.write({key: None})
    assert list(store.keys()) == []


def test_a_file_holds_what_was_written_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "state.db"
    store = SqliteStore(path)
    store.write({"a": b"\0\xff" * 100, "b": b""})
    store.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = SqliteStore(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (b"\0\xff" * 100, b"", None)
    again.close()


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from laconic.storage import SqliteStore
    store = SqliteStore(Path(sys.argv[1]))
    n = int(store.get("n") or b"0")
    assert all(store.get(f"part/{i}") == b"%d" % n * 2000 for i in range(5)) or n == 0
    while True:
        n += 1
        store.write({"n": b"%d" % n, **{f"part/{i}": b"%d" % n * 2000 for i in range(5)}})
        print(n, flush=True)
    """
)


def test_a_kill_at_any_moment_leaves_the_last_complete_write(tmp_path: Path) -> None:
    """What was reported is there after kill -9; what was under way is there whole or not at all."""
    path = tmp_path / "state.db"
    chance = random.Random(1)
    reported = 0
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as p:
            assert p.stdout is not None
            for _ in range(chance.randint(1, 60)):
                reported = int(p.stdout.readline())
            os.kill(p.pid, signal.SIGKILL)
            reported = max([reported, *(int(line) for line in p.stdout.readlines() if line.endswith("\n"))])
        assert p.returncode == -signal.SIGKILL
        store = SqliteStore(path)
        n = int(store.get("n") or b"0")
        assert n in (reported, reported + 1)
        assert [store.get(f"part/{i}") for i in range(5)] == [b"%d" % n * 2000] * 5
        store.close()
    assert reported > 20


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        SqliteStore(path)
    assert str(path) in str(caught.value)


def read_all(path: Path) -> list[bytes | None]:
    store = SqliteStore(path)
    try:
        return [store.get(key) for key in store.keys("")]
    finally:
        store.close()


def test_damage_in_the_middle_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.write({f"key/{i:04d}": os.urandom(500) for i in range(400)})
    store.close()
    assert len(read_all(path)) == 400
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(StorageError):
        read_all(path)


def test_a_second_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    first = SqliteStore(path)
    first.write({"a": b"1"})
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.05}))
    with pytest.raises(StorageError, match="another process"):
        SqliteStore(path).write({"a": b"2"})
    assert first.get("a") == b"1"
    first.write({"a": b"3"})
    first.close()
    second = SqliteStore(path)
    assert second.get("a") == b"3"
    second.close()


def test_a_full_disk_is_a_storage_error_and_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    store.write({"kept": b"before", "changed": b"before"})
    store._db.execute("PRAGMA max_page_count = 8")
    with pytest.raises(StorageError, match="full"):
        store.write({"changed": b"after", "large": bytes(100_000), "kept": None})
    assert (store.get("kept"), store.get("changed"), store.get("large")) == (b"before", b"before", None)
    store.write({"changed": b"small"})
    assert store.get("changed") == b"small"
    store.close()


LIMITED = textwrap.dedent(
    """
    import resource, signal, sys
    from pathlib import Path
    from laconic.errors import StorageError
    from laconic.storage import SqliteStore
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = SqliteStore(Path(sys.argv[1]))
    store.write({"kept": b"before"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        for i in range(1000):
            store.write({f"large/{i}": bytes(20_000), "kept": b"%d" % i})
            last = i
    except StorageError as e:
        print(last, store.get("kept").decode(), store.get(f"large/{last + 1}"))
    """
)


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_file_that_may_not_grow_is_a_storage_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "state.db")],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    last, kept, large = done.stdout.split()
    assert kept == last
    assert int(last) >= 1
    assert large == "None"


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        SqliteStore(tmp_path / "file" / "state.db")


def test_another_thread_reads_while_this_one_writes(tmp_path: Path) -> None:
    store, kept = SqliteStore(tmp_path / "state.db"), {f"u/{i}": bytes([i]) * 500 for i in range(20)}
    store.write(dict(kept))

    def read() -> list[str]:
        return [key for _ in range(20) for key, blob in kept.items() if store.get(key) != blob]

    with ThreadPoolExecutor(2) as readers:
        waiting = [readers.submit(read) for _ in range(2)]
        for k in range(30):
            store.write({"a": bytes([k]), "b": bytes([k])})
        assert [w.result() for w in waiting] == [[], []]
    store.close()


def flip(path: Path, needle: bytes, bit: int = 0) -> None:
    """One bit of a file, at the first place where `needle` is."""
    content = bytearray(path.read_bytes())
    content[content.index(needle)] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_in_an_entry_is_found(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.write({"a": b"untouched" * 10, "b": b"needle" * 10})
    assert store.damaged() == []
    store.close()
    flip(path, b"needle", bit)
    store = SqliteStore(path)
    assert store.get("a") == b"untouched" * 10
    with pytest.raises(StoreDamaged, match="entry b of the store"):
        store.get("b")
    assert store.damaged() == ["b"]
    store.write({"b": b"anew"})
    assert (store.get("b"), store.damaged()) == (b"anew", [])
    store.close()
    reader = ReadOnlyStore(path)
    assert reader.damage() is None
    reader.close()


def test_a_flipped_bit_in_a_key_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.write({"needle": b"1" * 100})
    store.close()
    flip(path, b"needle1111")
    store = SqliteStore(path)
    with pytest.raises(StoreDamaged, match="index"):
        store.damaged()
    store.close()
    reader = ReadOnlyStore(path)
    assert "oeedle" in (reader.damage() or "")
    reader.close()


def old_store(path: Path) -> None:
    """As the first releases made it: no checksums."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
    db.executemany("INSERT INTO entries VALUES (?, ?)", [(f"k/{i}", bytes([i]) * i) for i in range(50)])
    db.close()


def test_an_old_store_is_given_checksums(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    old_store(path)
    reader = ReadOnlyStore(path)
    assert reader.get("k/7") == bytes([7]) * 7
    assert reader.damage() is None
    reader.close()
    for _ in range(2):
        store = SqliteStore(path)
        assert [store.get(f"k/{i}") for i in range(50)] == [bytes([i]) * i for i in range(50)]
        assert store.damaged() == []
        store.close()
    flip(path, bytes([49]) * 49)
    assert read_fails(path, "k/49")


def read_fails(path: Path, key: str) -> bool:
    store = SqliteStore(path)
    with pytest.raises(StoreDamaged):
        store.get(key)
    store.close()
    return True


def test_a_file_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.write({"a": b"1"})
    store._db.execute(f"PRAGMA user_version = {FILE_FORMAT + 1}")
    store.close()
    before = path.read_bytes()
    for kind in (SqliteStore, ReadOnlyStore):
        with pytest.raises(StorageError, match="release that wrote it"):
            kind(path)
    assert path.read_bytes() == before
