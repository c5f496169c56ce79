"""An array survives IDX; whatever else the bytes are, they are refused, and cost no memory."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.datasets.idx import TYPES, decode_idx, read_idx
from laconic.errors import ConfigError
from often import examples


def encoded(array: np.ndarray, kind: int) -> bytes:
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(TYPES[kind]).tobytes()


ARRAYS = st.tuples(
    st.sampled_from(sorted(TYPES)), st.lists(st.integers(0, 4), min_size=1, max_size=4), st.booleans()
)


@settings(max_examples=examples(100), deadline=None)
@given(ARRAYS)
def test_an_array_comes_back(made: tuple[int, list[int], bool]) -> None:
    kind, shape, packed = made
    array = np.arange(math.prod(shape)).reshape(shape).astype(TYPES[kind])
    raw = encoded(array, kind)
    found = decode_idx(gzip.compress(raw) if packed else raw)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=64) | st.binary(max_size=40).map(lambda b: b"\0\0\x08\x02" + b), st.booleans())
def test_other_bytes_are_an_array_or_refused(raw: bytes, packed: bool) -> None:
    try:
        found = decode_idx(gzip.compress(raw) if packed else raw)
    except ConfigError:
        return
    assert found.nbytes < len(raw)


# Named by hand: the bytes of a packed file tell its second, and would name a test otherwise at every start.
LIES = {
    "more than there can be": (b"\0\0\x08\x01" + struct.pack(">I", 2**32 - 1), "bytes of"),
    "a product past any number": (b"\0\0\x0e\x08" + struct.pack(">8I", *[2**32 - 1] * 8), "bytes of"),
    "more than announced": (b"\0\0\x08\x01" + struct.pack(">I", 2) + b"abc", "bytes of"),
    "a head cut off": (b"\0\0\x08\x03\0", "at least 16"),
    "no leading zeros": (b"\0\1\x08\x01\0\0\0\0", "first bytes"),
    "a type nobody knows": (b"\0\0\x07\x01\0\0\0\0", "first bytes"),
    "no axis": (b"\0\0\x08\x00", "first bytes"),
    "nothing": (b"", "first bytes"),
    "a bomb": (gzip.compress(bytes(2_000_000)), "over 1000000"),
    "packed, cut off": (gzip.compress(encoded(np.zeros(9), 8))[:-9], "cut off"),
    "packed, and more": (gzip.compress(encoded(np.zeros(9), 8)) + b"more", "behind its end"),
    "not packed": (b"\x1f\x8b nothing of the kind", "no gzip"),
}


@pytest.mark.parametrize(("raw", "told"), LIES.values(), ids=LIES)
def test_a_file_that_lies_is_refused(raw: bytes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        decode_idx(raw, limit_bytes=1_000_000)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_bytes(encoded(np.array([[1, 2], [3, 4]]), 0x0C))
    assert read_idx(tmp_path / "a.idx").tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ConfigError, match="size"):
        read_idx(tmp_path / "a.idx", limit_bytes=20)
