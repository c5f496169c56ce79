"""What travels to workers: any call comes out as it went in, and what is sent again is named."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from laconic.device_sim.cluster.packing import LARGE_BYTES, Buffer, Kept, packed, unpacked
from often import examples

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.uint8]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


@settings(max_examples=examples(60))
@given(st.lists(ARRAYS, max_size=4), st.dictionaries(st.text(max_size=3), st.binary(max_size=9), max_size=3))
def test_what_is_unpacked_is_what_was_packed_in_whatever_memory(
    arrays: list[Any], rest: dict[str, bytes]
) -> None:
    """A transposed array, too; what comes back can be written to where its memory can."""
    arrays += [a.T for a in arrays]
    head, buffers = packed((arrays, rest))
    found, also = unpacked(head, [b.copy() for b in buffers])
    assert also == rest
    for a, b in zip(arrays, found, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert_array_equal(a, b)
        if a.ndim:
            b[...] = 0


def buffer(seed: int, size: int = LARGE_BYTES) -> Buffer:
    """Other bytes for each seed."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def test_what_is_sent_twice_is_put_once_and_named_from_then_on() -> None:
    put: list[bytes] = []

    def name(b: Buffer) -> str:
        put.append(b.tobytes())
        return f"name {len(put)}"

    kept = Kept(name, 10 * LARGE_BYTES)
    first, other = buffer(1), buffer(2)
    assert kept.sent(first) is first
    assert kept.sent(other) is other
    assert [kept.sent(b.copy()) for b in (first, first, other, first)] == [
        "name 1",
        "name 1",
        "name 2",
        "name 1",
    ]
    assert put == [first.tobytes(), other.tobytes()]


def test_small_arrays_are_always_sent() -> None:
    kept = Kept(lambda b: "name", 10 * LARGE_BYTES)
    small = buffer(1, LARGE_BYTES - 1)
    assert all(kept.sent(small) is small for _ in range(3))


def test_what_was_not_sent_for_longest_makes_room() -> None:
    """And begins anew: it is put again when it has been sent twice again."""
    put: list[int] = []
    kept = Kept(lambda b: put.append(int(b[0])) or f"put {len(put)}", 2 * LARGE_BYTES)  # type: ignore[func-returns-value]
    a, b, c = (buffer(i) for i in range(3))
    for one in (a, a, b, b, a, c, c):
        kept.sent(one)
    assert kept.sent(a) == "put 1"
    assert kept.sent(b) is b
    assert kept.sent(c) == "put 3"
