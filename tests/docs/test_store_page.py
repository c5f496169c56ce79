"""docs/spec/store.md has every field of every record on disk, and the store is as it says."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import msgspec
import pytest

from laconic.coordinator.aggregation.echo import SavedEcho
from laconic.coordinator.aggregation.optimizers import SavedMoments
from laconic.coordinator.aggregation.plausible import NormHistory
from laconic.coordinator.campaign import Committed, Progress, Standing
from laconic.coordinator.canary import Canary
from laconic.coordinator.custody import Request
from laconic.coordinator.evaluation import Evaluation
from laconic.coordinator.history import RoundRecord
from laconic.coordinator.ledger import DeviceRecord
from laconic.coordinator.records import ModelRecord, Refusal
from laconic.edge_sdk.records import Booked, Diary, Outbox
from laconic.storage import SqliteStore

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "spec" / "store.md").read_text()
RECORDS: dict[str, type[msgspec.Struct]] = {
    "diary": Diary,
    "booked": Booked,
    "outbox": Outbox,
    "progress": Progress,
    "update/": Committed,
    "device/": DeviceRecord,
    "model/": ModelRecord,
    "refused/": Refusal,
    "evaluation/": Evaluation,
    "rollback": Request,
    "canary": Canary,
    "server-optimizer": SavedMoments,
    "server-echo": SavedEcho,
    "norms": NormHistory,
    "standing": Standing,
    "round/": RoundRecord,
}


@pytest.mark.parametrize("name", list(RECORDS))
def test_the_fields_of_a_record(name: str) -> None:
    table = re.search(rf"^\| field of `{name}` .*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    assert table
    documented = [f for row in table[1].splitlines() for f in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert documented == list(RECORDS[name].__struct_fields__)
    required = {f.name for f in msgspec.structs.fields(RECORDS[name]) if f.required}
    for row in table[1].splitlines():
        names, kind = row.split("|")[1:3]
        for field in re.findall(r"`(\w+)`", names):
            assert (field in required) == ("," not in kind and kind.strip() != "map"), field


def test_the_file_is_as_the_page_says(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    store.write({"key": b"value"})
    statement = re.search(r"CREATE TABLE (entries .*)", PAGE)
    assert statement
    assert store._db.execute("SELECT sql FROM sqlite_master WHERE name = 'entries'").fetchone() == (
        f"CREATE TABLE {statement[1]}",
    )
    pragma = {p: store._db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous")}
    assert pragma == {"journal_mode": "wal", "synchronous": 2}
    assert store._db.execute("PRAGMA locking_mode").fetchone() == ("exclusive",)
    assert (tmp_path / "s.db").stat().st_mode & 0o777 == 0o600
    other = sqlite3.connect(tmp_path / "s.db", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM entries")
    other.close()
    store.close()
