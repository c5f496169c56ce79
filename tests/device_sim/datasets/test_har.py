"""Windows of what people did: as published and as arrays they are the same; people are not split."""

from __future__ import annotations

import io
import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.datasets import har
from laconic.device_sim.datasets.labelled import Dataset
from laconic.device_sim.datasets.npy import decode_npy
from laconic.device_sim.scenario.own import set_apart
from laconic.errors import ConfigError
from often import examples

PEOPLE = {"train": [1, 1, 3, 3, 1], "test": [2, 4, 2]}


def windows(part: str) -> np.ndarray:
    """`(windows, 6, 128)`, every value another one."""
    count = len(PEOPLE[part])
    made = np.arange(count * 6 * 128).reshape(count, 6, 128) / 1000 + (0 if part == "train" else 50)
    return np.asarray(made, np.float32)


def labels(part: str) -> np.ndarray:
    return np.arange(len(PEOPLE[part])) % 6


def published(folder: Path) -> None:
    for part, people in PEOPLE.items():
        signals = folder / har.FOLDER / part / "Inertial Signals"
        signals.mkdir(parents=True)
        for i, signal in enumerate(har.SIGNALS):
            np.savetxt(signals / f"{signal}_{part}.txt", windows(part)[:, i], "%16.7e")
        np.savetxt(signals.parent / f"y_{part}.txt", labels(part) + 1, "%d")
        np.savetxt(signals.parent / f"subject_{part}.txt", people, "%d")


def arrays(folder: Path, **changed: np.ndarray) -> None:
    x = np.concatenate([windows("train"), windows("test")]).transpose(0, 2, 1)
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(changed.pop("x", x)))
    (folder / f"{har.ARRAYS[0]}.xz").write_bytes(lzma.compress(out.getvalue()))
    y = np.concatenate([labels("train"), labels("test")]).astype(np.uint8)
    people = np.array(PEOPLE["train"] + PEOPLE["test"], np.uint8)
    np.savez(folder / har.ARRAYS[1], **({"y": y, "subject": people} | changed))


def same(a: Dataset, b: Dataset) -> None:
    assert a.held_out is not None
    assert b.held_out is not None
    for one, other in ((a.train, b.train), (a.held_out, b.held_out)):
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_array_equal(one.y, other.y)


def test_files_as_published_and_arrays_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "arrays").mkdir()
    published(tmp_path / "text")
    arrays(tmp_path / "arrays")
    one, other = har.load(tmp_path / "text"), har.load(tmp_path / "arrays")
    same(one, other)
    assert one.train.group is not None
    assert one.train.group.tolist() == [1, 1, 1, 3, 3]
    assert one.train.y.tolist() == [0, 1, 4, 2, 3]
    np.testing.assert_allclose(one.train.x, windows("train")[[0, 1, 4, 2, 3]], rtol=1e-6)
    assert len(har.files(tmp_path / "text")) == 16
    assert len(har.files(tmp_path / "arrays")) == 2
    assert har.files(tmp_path) == []


def test_people_held_out_are_the_scenarios_choice(tmp_path: Path) -> None:
    arrays(tmp_path)
    found = har.load(tmp_path, held_out=(3,))
    assert found.train.group is not None
    assert set(found.train.group.tolist()) == {1, 2, 4}
    assert found.held_out is not None
    assert len(found.held_out.y) == 2
    for nobody in ((), (30,), (1, 2, 3, 4)):
        with pytest.raises(ConfigError, match="people held out"):
            har.load(tmp_path, held_out=nobody)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"y": np.full(8, 6)}, "y in"),
        ({"y": np.full(8, 0.5)}, "y in"),
        ({"x": np.full((8, 128, 6), np.nan)}, "finite"),
        ({"y": np.zeros(7, int)}, "as many windows"),
        ({"subject": np.zeros(8, int)}, "people in"),
        ({"x": np.zeros((8, 128, 5))}, "shape of"),
        ({"x": np.zeros((8, 128, 6), complex)}, "type of"),
        ({"y": np.array([None] * 8)}, "type of y|no .npy"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, changed: dict, told: str) -> None:
    arrays(tmp_path, **changed)
    with pytest.raises(ConfigError, match=told):
        har.load(tmp_path)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no .*total_acc_x_train\.txt in"):
        har.load(tmp_path)
    published(tmp_path)
    y = tmp_path / har.FOLDER / "train" / "y_train.txt"
    for text, told in (("1\n2\n", "shapes of train"), ("one", "no table"), ("", "shapes of train")):
        y.write_text(text)
        with pytest.raises(ConfigError, match=told):
            har.load(tmp_path)


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda b: b"\x93NUMPY\x01\0" + b))
def test_bytes_are_an_array_or_refused(raw: bytes) -> None:
    try:
        found = decode_npy(raw, "made up")
    except ConfigError:
        return
    assert found.nbytes <= len(raw)


def test_an_array_of_more_than_there_is_is_refused() -> None:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with pytest.raises(ConfigError, match="by its shape"):
        decode_npy(out.getvalue(), "made up")


@pytest.mark.data
def test_the_real_people(shared_data: Path) -> None:
    """Counts as in the data set's own readme."""
    found = har.load(shared_data / "uci-har")
    assert found.train.x.shape == (7352, 6, 128)
    assert found.held_out is not None
    assert found.held_out.x.shape == (2947, 6, 128)
    assert found.train.group is not None
    assert len(np.unique(found.train.group)) == 21
    # What a phone keeps to score its model by has everything that its owner does.
    owners = np.unique(found.train.group, return_inverse=True)[1]
    apart = set_apart(owners, found.train.y, found.train.group, 0.2)
    assert all(len(np.unique(found.train.y[apart & (owners == person)])) == 6 for person in range(21))
    # Gravity, about 1 g, is on the phone's first axis while somebody walks.
    assert 0.8 < found.train.x[found.train.y == 0, 0].mean() < 1.1
