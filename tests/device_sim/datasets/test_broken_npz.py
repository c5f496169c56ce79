"""Traces of faults: files of examples that once ended in a traceback, or a model as large as a disk."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim import Scenario
from laconic.device_sim.datasets import npz
from laconic.device_sim.datasets.npy import decode_npy
from laconic.device_sim.scenario.examples import Examples, Part, examples_of
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.settings import DataSection, ModelSection
from laconic.device_sim.traces import all_of
from laconic.errors import ConfigError

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.arange(6) % 2


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in members.items():
            opened.writestr(f"{name}.npy", content)
    return file.getvalue()


def written(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


BROKEN = {
    "an array by itself": header((3,)) + bytes(12),
    "sizes that lie": archive(x=header((2**31, 100)), y=header((2**31,))),
    "members that are no arrays": archive(x=b"hello", y=b"world"),
    "a header that ends in the middle": archive(x=b"\x93NUMPY\x01\x00\x05\x00(((((", y=header((0,))),
    "no y": written(x=X),
    "NaN": written(x=X * np.float32(np.nan), y=Y),
    "infinity": written(x=X, y=np.full(6, 1e300)),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
def test_what_is_no_file_of_examples_is_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=r"x\.npz"):
        npz.load(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x93NUMPY\x01\x00\x05\x00(((((",
        b"\x93NUMPY\x02\x00" + (9000).to_bytes(4, "little") + b"(" * 9000,
        header((0, 2**62)),
        header((-1, -3)) + bytes(12),
    ],
)
def test_arrays_whose_header_is_nonsense_are_refused(raw: bytes) -> None:
    with pytest.raises(ConfigError, match="labels"):
        decode_npy(raw, "labels")


def test_an_archive_of_traces_with_a_name_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="archive"):
        all_of(tmp_path, "a\0.tar:*")


def test_an_archive_that_says_it_unpacks_to_more_than_memory_is_refused(tmp_path: Path) -> None:
    raw = bytearray(written(x=X, y=Y))
    # The size of the first member, unpacked, in the directory at the end.
    at = raw.rindex(b"PK\x01\x02", 0, raw.rindex(b"PK\x01\x02")) + 24
    raw[at : at + 4] = (2**32 - 2).to_bytes(4, "little")
    path = tmp_path / "x.npz"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="bytes in"):
        npz.load(path)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files_are_read_or_refused(damage: list[tuple[int, int]]) -> None:
    import tempfile

    raw = bytearray(written(x=X, y=Y, group=Y))
    for place, value in damage:
        raw[place % len(raw)] = value
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(raw)
        file.flush()
        with contextlib.suppress(ConfigError):
            npz.load(Path(file.name))


@pytest.mark.parametrize("classes", [[-1, 1], [0, 2**40], [2**63, 0]])
def test_labels_that_are_no_classes_are_refused(classes: list[int]) -> None:
    y = np.array(classes, np.uint64 if max(classes) >= 2**63 else np.int64)
    part = Part(X[:2], y)
    with pytest.raises(ConfigError, match="classes in y"):
        bundle_of(
            ModelSection(built_in="softmax"), Examples([part], part), seed=0, proximal=False, folder=Path()
        )


def test_a_model_larger_than_a_machine_is_refused() -> None:
    part = Part(X[:2], Y[:2])
    model = ModelSection(built_in="mlp", hidden=(65_536, 65_536))
    with pytest.raises(ConfigError, match="parameters of"):
        bundle_of(model, Examples([part], part), seed=0, proximal=False, folder=Path())


def test_no_path_is_no_path_of_a_trace() -> None:
    # It stood for all files of the root folder.
    device = {"name": "pi", "count": 1, "speed": {"sample_s": 0.1}, "connection": {"up_trace": ""}}
    with pytest.raises(ConfigError, match="up_trace"):
        Scenario.of({"name": "s", "model": {"built_in": "softmax"}, "devices": [device]})


@pytest.mark.parametrize("division", ["uniform", "dirichlet", "own_class"])
def test_words_as_labels_are_what_is_wrong_however_they_are_divided(division: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "words.npz", x=X, y=np.array(["calm", "storm"] * 3))
    section = DataSection(source="npz", path="words.npz", division=division)
    with pytest.raises(ConfigError, match=r"dtype of y in .*words\.npz, found <U5, allowed whole numbers"):
        examples_of(section, 2, 0, tmp_path)
