"""CSV files and SQLite tables: columns become examples, and a row that is wrong is named."""

from __future__ import annotations

import csv
import gzip
import lzma
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.edge_sdk.data import CsvFile, ExampleBuffer, Signature, SqliteTable, source_of
from laconic.edge_sdk.data.sections import DataSection, examples_of
from laconic.edge_sdk.data.signature import Field
from laconic.errors import DataError
from laconic.runtime import Bundle
from often import examples

REAL, INDEX = np.dtype(np.float32), np.dtype(np.int64)
ROWS = [(1.5, -2.0, "up"), (0.25, 1e3, "down"), (-0.0, 7.0, "left, or so")]
CLASSES = ("up", "down", "left, or so")


def rows_of(found: Any) -> list[tuple[float, float, str]]:
    return [
        (a, b, CLASSES[c])
        for (a, b), c in zip(found.x["x"].tolist(), found.y["target"].tolist(), strict=True)
    ]


def write(path: Path, rows: list[Any], header: tuple[str, ...] = ("time", "a", "b", "kind")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *((i, *row) for i, row in enumerate(rows))])
    return path


def database(path: Path, rows: list[Any]) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    db.execute('CREATE TABLE "my ""log" (a, b, kind)')
    db.executemany('INSERT INTO "my ""log" VALUES (?, ?, ?)', rows)
    db.commit()
    return db


def test_both_give_what_was_written(linear: Bundle, tmp_path: Path) -> None:
    write(tmp_path / "d.csv", ROWS)
    database(tmp_path / "d.db", ROWS).close()
    found = [
        CsvFile(tmp_path / "d.csv", ["a", "b"], "kind", CLASSES),
        SqliteTable(tmp_path / "d.db", 'my "log', ["a", "b"], "kind", CLASSES),
        SqliteTable(
            tmp_path / "d.db", 'SELECT b AS q, a, kind FROM "my ""log"', {"x": ["a", "q"]}, "kind", CLASSES
        ),
    ]
    for data in found:
        snapshot = source_of(data, linear.manifest).snapshot()
        assert rows_of(snapshot) == ROWS
    before = (tmp_path / "d.db").read_bytes()
    assert before == (tmp_path / "d.db").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.csv", "d.db"]


@given(
    st.lists(
        st.tuples(
            st.floats(-(2.0**100), 2.0**100, width=32),
            st.floats(-(2.0**100), 2.0**100, width=32),
            st.integers(0, 2),
        ),
        max_size=8,
    )
)
@settings(max_examples=examples(30), deadline=None)
def test_every_float_comes_back(linear: Bundle, tmp_path_factory: Any, rows: list[Any]) -> None:
    path = write(tmp_path_factory.mktemp("t") / "d.csv", rows)
    snapshot = source_of(CsvFile(path, ["a", "b"], "kind"), linear.manifest).snapshot()
    assert snapshot.x["x"].tobytes() == np.array([r[:2] for r in rows], np.float32).tobytes()
    assert snapshot.y["target"].tolist() == [r[2] for r in rows]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1,nan,up", "value of 'x' in line 3 of"),
        ("1,,up", "'b' in line 3 of"),
        ("1,2,sideways", "'kind' in line 3 of .*found sideways, allowed a number, or a word of classes"),
        ("1,2", "columns in line 3 of .*found 2, allowed 3 or more"),
        ("1,1e39,up", "value of 'x' in line 3 of"),
        ("1,\xff,up", "'b' in line 3 of"),
        ('1,"2"x,up', "line 3 of"),
        ("1,\0,up", "line 3 of"),
    ],
)
def test_a_bad_row_is_named_or_left_out(linear: Bundle, tmp_path: Path, row: str, says: str) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(f"a,b,kind\n1,2,up\n{row}\n\n3,4,down\n".encode("latin-1"))
    with pytest.raises(DataError, match=says):
        source_of(CsvFile(path, ["a", "b"], "kind", CLASSES), linear.manifest)
    data = CsvFile(path, ["a", "b"], "kind", CLASSES, on_bad_row="skip")
    snapshot = source_of(data, linear.manifest).snapshot()
    assert (snapshot.skipped, rows_of(snapshot)) == (1, [(1, 2, "up"), (3, 4, "down")])


def test_headers_delimiters_quotes_and_converters(linear: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("1,5;'x; 2';0\n2,5;'x; 3';1\n")
    comma: dict[str, Any] = {"delimiter": ";", "quote": "'"}
    converters = {"0": lambda s: float(s.replace(",", ".")), "1": lambda s: float(s.removeprefix("x; "))}
    plain = CsvFile(path, ["0", "1"], "2", converters=converters, header=False, **comma)
    names = {"a": converters["0"], "b": converters["1"]}
    named = CsvFile(path, ["a", "b"], "c", converters=names, header=["a", "b", "c"], **comma)
    for data in (plain, named):
        snapshot = source_of(data, linear.manifest).snapshot()
        assert snapshot.x["x"].tolist() == [[1.5, 2], [2.5, 3]]
        assert snapshot.y["target"].tolist() == [0, 1]


def test_a_log_that_grows_is_read_again(linear: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("")
    source = source_of(CsvFile(path, ["a", "b"], "kind", CLASSES), linear.manifest)
    assert source.samples == 0
    path.write_text("a,b,kind\n1,2,up\n")
    assert (source.samples, source.snapshot().samples) == (1, 1)
    with path.open("a") as file:
        file.write("3,4,down\n")
    assert (source.snapshot().samples, source.samples) == (2, 2)


def test_a_database_is_read_while_another_program_writes(linear: Bundle, tmp_path: Path) -> None:
    db = database(tmp_path / "d.db", ROWS)
    db.execute("PRAGMA journal_mode=WAL")
    source = source_of(
        SqliteTable(tmp_path / "d.db", 'my "log', ["a", "b"], "kind", CLASSES), linear.manifest
    )
    assert source.samples == 3
    db.execute('INSERT INTO "my ""log" VALUES (9, 9, ?)', ("up",))
    assert source.snapshot().samples == 3
    db.commit()
    assert source.snapshot().samples == 4
    db.close()


def test_a_blob_is_an_array(tmp_path: Path) -> None:
    signature = Signature((Field("image", REAL, (1, 2, 3)),), (Field("target", INDEX, (), 10, "y"),))
    images = np.random.default_rng(0).random((4, 1, 2, 3), np.float32)
    db = sqlite3.connect(tmp_path / "d.db")
    db.execute("CREATE TABLE seen (pixels BLOB, digit INTEGER)")
    db.executemany("INSERT INTO seen VALUES (?, ?)", [(x.tobytes(), i) for i, x in enumerate(images)])
    db.commit()
    data = SqliteTable(tmp_path / "d.db", "seen", "pixels", "digit")
    snapshot = data.bind(signature).snapshot()
    assert snapshot.x["image"].tobytes() == images.tobytes()
    for blob in (b"123", b"1234"):
        db.execute("UPDATE seen SET pixels = ? WHERE digit = 2", (blob,))
        db.commit()
        with pytest.raises(DataError, match="row 3 of"):
            data.bind(signature)
    db.close()


@pytest.mark.parametrize(
    ("source", "features", "says"),
    [
        ("nothing", ["a", "b"], "no such table"),
        ('my "log', ["a", "wrong"], "no such column"),
        ('SELECT a FROM "my ""log"', ["a", "b"], "columns of .*found \\['b'\\]"),
        ('my "log', ["a"], "values of 'x'|columns for 'x'"),
        ('WITH t AS (SELECT 1) DELETE FROM "my ""log"', ["a", "b"], "readonly"),
        ("SELECT 1; DROP TABLE x", ["a", "b"], "one statement"),
        ('my "log', {"image": ["a", "b"]}, "features of"),
    ],
)
def test_a_query_that_cannot_be_is_refused_at_once(
    linear: Bundle, tmp_path: Path, source: str, features: Any, says: str
) -> None:
    database(tmp_path / "d.db", ROWS).close()
    before = (tmp_path / "d.db").read_bytes()
    with pytest.raises(DataError, match=says):
        source_of(SqliteTable(tmp_path / "d.db", source, features, "kind", CLASSES), linear.manifest)
    assert (tmp_path / "d.db").read_bytes() == before
    with pytest.raises(DataError, match="there is no database"):
        source_of(SqliteTable(tmp_path / "none.db", source, features), linear.manifest)


@given(st.binary(max_size=200))
@settings(max_examples=examples(60), deadline=None)
def test_a_file_of_anything_is_a_data_error_or_nothing(
    linear: Bundle, tmp_path_factory: Any, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("t")
    for path in (folder / "d.csv", folder / "d.db"):
        path.write_bytes(content)
    for data in (
        CsvFile(folder / "d.csv", ["0", "1"], "2", header=False, on_bad_row="skip"),
        SqliteTable(folder / "d.db", "t", ["a", "b"], "c"),
    ):
        try:
            found = source_of(data, linear.manifest).snapshot()
        except DataError:
            continue
        assert np.isfinite(found.x["x"]).all()


def test_tables_of_a_configuration(linear: Bundle, tmp_path: Path) -> None:
    write(tmp_path / "d.csv", ROWS)
    database(tmp_path / "d.db", ROWS).close()
    common = {"features": ["a", "b"], "label": "kind", "classes": list(CLASSES)}
    for table in (
        {"kind": "csv", "path": "d.csv", **common},
        {"kind": "sqlite", "path": "d.db", "source": 'my "log', **common},
    ):
        section: Any = msgspec.convert(table, DataSection)
        snapshot = source_of(examples_of(section, tmp_path), linear.manifest).snapshot()
        assert rows_of(snapshot) == ROWS


# --- real data


@pytest.mark.data
def test_handwritten_digits_go_through_a_buffer(shared_data: Path, tmp_path: Path) -> None:
    """MNIST: what a camera program would see, one at a time; the balanced sample has each digit."""
    with gzip.open(shared_data / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 784 * 1000)[16:], np.uint8).reshape(-1, 1, 28, 28)
    with gzip.open(shared_data / "mnist" / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + 1000)[8:], np.uint8)
    signature = Signature(
        (Field("image", np.dtype(np.uint8), (1, 28, 28)),), (Field("target", INDEX, (), 10, "y"),)
    )
    known = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    with ExampleBuffer(tmp_path, signature, max_bytes=2**18, keep="balanced") as buffer:
        for image, label in zip(images, labels, strict=True):
            buffer.add(image, label)
        found = buffer.snapshot()
        assert np.bincount(found.y["target"], minlength=10).tolist() == [buffer.capacity // 10] * 10
        for image, label in zip(found.x["image"], found.y["target"], strict=True):
            assert known[image.tobytes()] == label
        assert buffer.status().disk_bytes <= 2**18


@pytest.mark.data
def test_a_phones_windows_come_back_from_a_database(shared_data: Path, tmp_path: Path) -> None:
    """UCI HAR: 128 readings of six sensors in a BLOB, what the person did in a word."""
    folder = shared_data / "uci-har"
    with lzma.open(folder / "total_acc_body_gyro_f4.npy.xz") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        windows = np.frombuffer(file.read(4 * 300 * 128 * 6), "<f4").reshape(300, 128, 6)
    labels = np.load(folder / "labels.npz")["y"][:300]
    words = ("walking", "upstairs", "downstairs", "sitting", "standing", "laying")
    signature = Signature((Field("window", REAL, (128, 6)),), (Field("target", INDEX, (), 6, "y"),))
    db = sqlite3.connect(tmp_path / "har.db")
    db.execute("CREATE TABLE windows (sensors BLOB, activity TEXT)")
    rows = [(w.astype("<f4").tobytes(), words[int(i)]) for w, i in zip(windows, labels, strict=True)]
    db.executemany("INSERT INTO windows VALUES (?, ?)", rows)
    db.commit()
    db.close()
    data = SqliteTable(tmp_path / "har.db", "windows", "sensors", "activity", words)
    snapshot = data.bind(signature).snapshot()
    assert snapshot.x["window"].tobytes() == windows.tobytes()
    assert snapshot.y["target"].tolist() == labels.tolist()
