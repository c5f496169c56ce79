"""Laws of chunking: whatever the order, loss or repetition, the blob comes out whole or not at all."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import ChecksumMismatch, LimitExceeded, Malformed
from laconic.protocol.chunks import MAX_CHUNK_BYTES, Assembly, split
from laconic.protocol.messages import Blob


@given(st.binary(max_size=2000), st.integers(1, 300))
def test_split_cuts_without_a_gap(data: bytes, chunk_bytes: int) -> None:
    pieces = split(data, chunk_bytes)
    assert b"".join(pieces) == data
    assert all(len(p) == chunk_bytes for p in pieces[:-1])
    assert len(pieces) == Blob(len(data), chunk_bytes, hashlib.sha256(data).digest()).chunks


@given(st.binary(max_size=600), st.integers(1, 100), st.randoms(use_true_random=False), st.integers(0, 3))
def test_any_order_with_loss_and_repetition(
    data: bytes, chunk_bytes: int, random: object, times: int
) -> None:
    pieces = split(data, chunk_bytes)
    arrivals = [i for i in range(len(pieces)) for _ in range(random.randint(0, times))]  # type: ignore[attr-defined]
    random.shuffle(arrivals)  # type: ignore[attr-defined]
    assembly = Assembly(limit_bytes=len(data))
    for i in arrivals:
        assembly.add(i, pieces[i])
    lost = sorted(set(range(len(pieces))) - set(arrivals))
    assert assembly.missing(len(pieces)) == lost
    assert assembly.missing(len(pieces), most=2) == lost[:2]
    assert assembly.held_bytes == sum(len(pieces[i]) for i in set(arrivals))
    for i in lost:
        assembly.add(i, pieces[i])
    assert assembly.missing(len(pieces)) == []
    sha256 = hashlib.sha256(data).digest()
    assert assembly.join(size=len(data), chunks=len(pieces), sha256=sha256) == data
    with pytest.raises(Malformed):
        assembly.join(size=len(data) + 1, chunks=len(pieces), sha256=sha256)
    with pytest.raises(ChecksumMismatch):
        assembly.join(size=len(data), chunks=len(pieces), sha256=bytes(32))


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 200)), max_size=300), st.integers(0, 2000))
def test_what_is_held_never_passes_the_limit(arrivals: list[tuple[int, int]], limit: int) -> None:
    assembly = Assembly(limit_bytes=limit)
    for index, size in arrivals:
        before = assembly.held_bytes, assembly.cost_bytes
        try:
            assembly.add(index, bytes(size))
        except LimitExceeded:
            assert (assembly.held_bytes, assembly.cost_bytes) == before
        assert assembly.cost_bytes <= limit + 64 * 1024


def test_a_piece_over_the_limit_of_a_chunk_is_refused() -> None:
    assembly = Assembly(limit_bytes=10**6)
    assembly.add(0, bytes(MAX_CHUNK_BYTES))
    with pytest.raises(LimitExceeded):
        assembly.add(1, bytes(MAX_CHUNK_BYTES + 1))


def test_a_flood_of_empty_pieces_takes_bounded_memory() -> None:
    assembly = Assembly(limit_bytes=10**5)
    tracemalloc.start()
    refused = 0
    for i in range(20_000):
        try:
            assembly.add(i, b"")
        except LimitExceeded:
            refused += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 10_000
    assert peak < 8e6
