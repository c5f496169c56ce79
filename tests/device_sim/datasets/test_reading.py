"""Compressed files come back as they were; what swells, is cut off or goes on behind its end is refused."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.datasets.reading import gunzip, read_plain, unxz
from laconic.errors import ConfigError
from often import examples

WAYS = [(gzip.compress, gunzip), (lzma.compress, unxz)]
Way = tuple[Callable[[bytes], bytes], Callable[..., bytes]]


@pytest.mark.parametrize("way", WAYS, ids=["gzip", "xz"])
@settings(max_examples=examples(60), deadline=None)
@given(content=st.binary(max_size=300), cut=st.integers(1, 20), more=st.binary(min_size=1, max_size=5))
def test_what_is_whole_comes_back_and_nothing_else(way: Way, content: bytes, cut: int, more: bytes) -> None:
    pack, unpack = way
    raw = pack(content)
    assert unpack(raw, "made up", limit_bytes=len(content)) == content
    for wrong in (raw[:-cut], raw + more):
        with pytest.raises(ConfigError):
            unpack(wrong, "made up", limit_bytes=1000)
    if content:
        with pytest.raises(ConfigError, match="over"):
            unpack(raw, "made up", limit_bytes=len(content) - 1)


@pytest.mark.parametrize("way", WAYS, ids=["gzip", "xz"])
def test_a_bomb_is_refused(way: Way) -> None:
    pack, unpack = way
    with pytest.raises(ConfigError, match="over 1000000"):
        unpack(pack(bytes(4_000_000)), "made up", limit_bytes=1_000_000)


def test_a_file_is_found_under_each_of_its_names(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b.xz", lzma.compress(b"2")), ("c.gz", gzip.compress(b"3"))):
        (tmp_path / name).write_bytes(content)
    found = [read_plain(tmp_path, name, limit_bytes=100, remedy="") for name in "abc"]
    assert found == [b"1", b"2", b"3"]
    with pytest.raises(ConfigError, match=r"no d in .*; write it"):
        read_plain(tmp_path, "d", limit_bytes=100, remedy="write it")
