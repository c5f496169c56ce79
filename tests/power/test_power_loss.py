"""A loss of power takes what was not synced, may take any part of it, and never what was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from _sdk.disk import FATES, SECTORS, PowerDisk, _File
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.storage import SqliteStore
from often import examples

pytestmark = pytest.mark.cc
Run = Callable[..., "subprocess.Popen[str]"]

WRITES = st.lists(
    st.tuples(st.integers(0, 9000), st.none() | st.binary(min_size=1, max_size=3000)), max_size=6
)


@settings(max_examples=examples(150), deadline=None, derandomize=True)
@given(
    durable=st.binary(max_size=6000),
    since=WRITES,
    fate=st.sampled_from(FATES),
    sector=st.sampled_from(SECTORS),
    seed=st.integers(0, 99),
)
def test_every_sector_is_in_one_of_its_states(
    durable: bytes, since: list[tuple[int, bytes | None]], fate: str, sector: int, seed: int
) -> None:
    states = [_File(durable, since[:k]).now() for k in range(len(since) + 1)]
    left = _File(durable, since).after_loss(random.Random(seed), fate, sector)
    assert fate != "nothing" or left == durable
    assert fate != "everything" or left == states[-1]
    for at in range(0, len(left), sector):
        piece = left[at : at + sector]
        # What lies beyond the end of a state is zeros once the file is longer.
        assert any(s[at : at + sector].ljust(len(piece), b"\0")[: len(piece)] == piece for s in states)


EVERYTHING = """
import os
with open("a", "wb") as f:
    f.write(b"1" * 5000)
    f.flush()
    f.truncate(100)
with open("a", "ab") as f:
    f.write(b"2" * 10)
fd = os.open("b", os.O_CREAT | os.O_RDWR)
os.pwrite(fd, b"x" * 4096, 8192)
os.writev(fd, [b"one", b"two"])
os.fsync(fd)
os.rename("a", "c")
os.rename("c", "sub/d")
os.unlink("b")
os.write(fd, b"nobody will see this")
open("e", "w").close()
open("sub/e", "w").write("kept")
open("sub/e", "w").write("anew")
os.truncate("sub/e", 2)
"""


def test_the_log_explains_the_folder(disk: PowerDisk, program: Run) -> None:
    (disk.folder / "sub").mkdir()
    assert program(EVERYTHING).wait(20) == 0
    assert {str(p.relative_to(disk.folder)) for p in disk.folder.rglob("*") if p.is_file()} == {
        "sub/d", "e", "sub/e",
    }  # fmt: skip
    assert disk.agrees()
    (disk.folder / "sub" / "e").write_bytes(b"unseen")
    assert not disk.agrees(), "what the library has not seen is found"


def losses(disk: PowerDisk, program: Run, text: str, runs: int = 12) -> list[dict[str, bytes]]:
    """What so many losses of power leave of one program's files, each time from an empty folder."""
    assert program(text).wait(20) == 0
    log, found = disk.log.read_bytes(), []
    for seed in range(runs):
        for path in disk.folder.iterdir():
            path.unlink()
        disk.begin()
        disk.log.write_bytes(log)
        disk.lose_power(random.Random(seed))
        found.append({p.name: p.read_bytes() for p in disk.folder.iterdir()})
    return found


CARELESS = "open('f', 'wb').write(b'x' * 20000)"
CAREFUL = """
import os
with open("f", "wb") as f:
    f.write(b"x" * 20000)
    f.flush()
    os.fsync(f.fileno())
"""
FOLDER_TOO = CAREFUL + "os.fsync(os.open('.', os.O_RDONLY))\n"


def test_who_does_not_sync_loses_and_who_does_never_does(disk: PowerDisk, program: Run) -> None:
    whole = {"f": b"x" * 20000}
    careless = losses(disk, program, CARELESS)
    assert {} in careless, "the file is gone"
    assert whole in careless, "nothing happened to it"
    assert any(0 < f.get("f", b"").count(b"x") < 20000 for f in careless), "half of it is there"


def test_a_synced_file_in_an_unsynced_folder_may_be_gone(disk: PowerDisk, program: Run) -> None:
    found = losses(disk, program, CAREFUL)
    assert {} in found
    assert all(f in ({}, {"f": b"x" * 20000}) for f in found)


def test_who_syncs_file_and_folder_loses_nothing(disk: PowerDisk, program: Run) -> None:
    assert losses(disk, program, FOLDER_TOO) == [{"f": b"x" * 20000}] * 12


WRITER = textwrap.dedent(
    """
    from pathlib import Path
    from laconic.storage import SqliteStore
    store = SqliteStore(Path("new folder/state.db"))
    n = int(store.get("n") or b"0")
    while True:
        n += 1
        # Long enough for checkpoints.
        part = b"%d" % n * (3000 + 997 * n % 20000)
        store.write({"n": b"%d" % n, **{f"part/{i}": part for i in range(5)}})
        print(n, flush=True)
    """
)


def survive(disk: PowerDisk, program: Run, chance: random.Random, writes: int) -> int:
    """One life of the writer, a loss of power at any moment, and a look at what is left."""
    with program(WRITER) as p:
        assert p.stdout is not None
        reported = [int(p.stdout.readline()) for _ in range(writes)][-1]
        os.kill(p.pid, signal.SIGKILL)
        reported = max([reported, *(int(line) for line in p.stdout if line.endswith("\n"))])
    disk.lose_power(chance)
    path = disk.folder / "new folder" / "state.db"
    store = SqliteStore(path)
    n = int(store.get("n") or b"0")
    assert n in (reported, reported + 1)
    part = b"%d" % n * (3000 + 997 * n % 20000)
    assert [store.get(f"part/{i}") for i in range(5)] == [part] * 5
    assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store.close()
    disk.begin()
    return n


def test_a_store_keeps_what_it_has_said_to_have_written(disk: PowerDisk, program: Run) -> None:
    chance = random.Random(1)
    for _ in range(4):
        last = survive(disk, program, chance, chance.randint(1, 60))
    assert last > 30


@pytest.mark.soak
def test_the_same_for_long(disk: PowerDisk, program: Run) -> None:
    chance = random.Random(2)
    for _ in range(150):
        survive(disk, program, chance, chance.randint(1, 80))


def test_a_store_that_is_closed_is_explained_by_the_log(disk: PowerDisk, program: Run) -> None:
    text = """
from pathlib import Path
from laconic.storage import SqliteStore
store = SqliteStore(Path("state.db"))
for i in range(300):
    store.write({f"k/{i % 50}": bytes([i % 256]) * (100 * i)})
store.close()
"""
    assert program(text).wait(30) == 0
    assert disk.agrees()
    assert [p.name for p in disk.folder.iterdir()] == ["state.db"]


def test_without_its_syncs_the_same_store_breaks(disk: PowerDisk, program: Run, tmp_path: Path) -> None:
    """The disk can tell: with synchronous=OFF what was reported is lost, or the file is damaged."""
    careless = WRITER.replace("n = int(", 'store._db.execute("PRAGMA synchronous=OFF")\nn = int(')
    broken = 0
    for seed in range(4):
        with program(careless) as p:
            assert p.stdout is not None
            reported = [int(p.stdout.readline()) for _ in range(60)][-1]
            os.kill(p.pid, signal.SIGKILL)
        disk.lose_power(random.Random(seed))
        try:
            store = SqliteStore(disk.folder / "new folder" / "state.db")
            broken += int(store.get("n") or b"0") < reported
            store.close()
        except Exception:
            broken += 1
        for path in disk.folder.rglob("*"):
            if path.is_file():
                path.unlink()
        disk.begin()
    assert broken >= 2
