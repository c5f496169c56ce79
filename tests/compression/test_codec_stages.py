"""Laws of the single stages: packing, coders, position coders, varints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compression.bits import pack, packed_size, unpack
from laconic.compression.coders import CODERS, FASTEST, read_codes, write_codes
from laconic.compression.positions import POSITIONS, read_positions, write_positions
from laconic.compression.quantisers import QUANTISERS
from laconic.compression.stages import BLOCK
from laconic.compression.transforms import TRANSFORMS
from laconic.compression.wire import MAX_VARINT, Reader, varint
from laconic.errors import Malformed


def codes_of(seed: int, count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(0.4, count) - 1, (1 << width) - 1).astype(np.uint8)


@given(st.integers(0, 99), st.integers(0, 300), st.integers(1, 8))
@settings(deadline=None)
def test_packing_is_a_round_trip(seed, count, width):
    codes = codes_of(seed, count, width)
    packed = pack(codes, width)
    assert len(packed) == packed_size(count, width)
    if count:
        assert (unpack(packed, count, width) == codes).all()


@pytest.mark.parametrize("width", range(1, 9))
def test_packing_crosses_its_blocks(width):
    codes = codes_of(width, BLOCK * 2 + 13, width)
    assert (unpack(pack(codes, width), codes.size, width) == codes).all()


def test_packed_codes_stand_lowest_bit_first():
    assert pack(np.array([1, 2, 3], np.uint8), 3) == bytes([0b11_010_001, 0b0])
    assert pack(np.array([7, 0, 4], np.uint8), 3) == bytes([0b00_000_111, 0b1])


@pytest.mark.parametrize("width", [1, 3, 8])
def test_few_bytes_of_a_coder_never_stand_for_many_slow_codes(width):
    """The adaptive coder alone is slow enough that a frame's length must bound its codes."""
    many = (1 << 17) + 64 * 12 + 1
    with pytest.raises(Malformed, match="codes of an adaptive stream"):
        read_codes(Reader(memoryview(b"\x34\x0c" + bytes(12))), many, width)
    codes = np.zeros(many, np.uint8)
    assert CODERS.by_number[0x34].encode(codes, width, 9) is None
    reader = Reader(memoryview(write_codes(codes, width, 9)))
    assert (read_codes(reader, many, width).codes() == codes).all()


def test_padding_must_be_zero():
    with pytest.raises(Malformed, match="padding"):
        unpack(bytes([0b1000_0001]), 7, 1)


@given(st.integers(0, 99), st.integers(1, 500), st.integers(1, 8))
@settings(deadline=None)
def test_every_coder_is_a_round_trip(seed, count, width):
    codes = codes_of(seed, count, width)
    for coder in CODERS:
        reader = Reader(memoryview(coder.encode(codes, width, 3)))
        assert (coder.read(reader, count, width).codes() == codes).all()
        assert not reader.left
    reader = Reader(memoryview(write_codes(codes, width, 3)))
    assert (read_codes(reader, count, width).codes() == codes).all()


@given(st.integers(0, 999), st.integers(1, 3000), st.floats(0, 1))
@settings(deadline=None)
def test_every_position_coder_is_a_round_trip(seed, values, density):
    rng = np.random.default_rng(seed)
    mask = rng.random(values) < density
    mask[rng.integers(values)] = True
    kept = int(np.count_nonzero(mask))
    for coder in POSITIONS:
        body = coder.encode(np.flatnonzero(mask), values, 3)
        if body is None:
            assert kept > values // 8
            continue
        reader = Reader(memoryview(body))
        assert (coder.read(reader, values, kept).mask() == mask).all()
        assert not reader.left
    for level in FASTEST, 3:
        body = write_positions(np.flatnonzero(mask), values, level)
        assert (read_positions(Reader(memoryview(body)), values, kept)[1].mask() == mask).all()


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 509, 510, 511])
def test_escaped_gaps_at_their_edges(gap):
    positions = np.array([5, 6 + gap, 3999])
    for coder in POSITIONS:
        body = coder.encode(positions, 4000, 3)
        assert body is not None
        assert (coder.read(Reader(memoryview(body)), 4000, 3).positions() == positions).all()


def test_positions_beyond_the_tensor_are_refused():
    for coder in POSITIONS:
        body = coder.encode(np.array([1, 799]), 800, 3)
        assert body is not None
        if coder.name != "bitmap":
            with pytest.raises(Malformed, match="last kept position"):
                coder.read(Reader(memoryview(body)), 799, 2).mask()
        with pytest.raises(Malformed):
            coder.read(Reader(memoryview(body)), 800, 3).mask()


@given(st.integers(0, MAX_VARINT))
@settings(deadline=None)
def test_varints_are_a_round_trip_in_their_shortest_form(number):
    written = varint(number)
    assert Reader(memoryview(written)).varint("x") == number
    assert len(written) == max(1, -(-number.bit_length() // 7))


@pytest.mark.parametrize("bad", ["", "80", "8000", "ffffffffffff01", "ffffffffff7f"])
def test_bad_varints_are_refused(bad):
    with pytest.raises(Malformed):
        Reader(memoryview(bytes.fromhex(bad))).varint("x")


def test_numbers_of_stages_never_change():
    """This table only ever grows: frames of every release decode for ever."""
    assert {s.number: s.name for r in (TRANSFORMS, QUANTISERS, POSITIONS, CODERS) for s in r} == {
        0x01: "zero",
        0x02: "dense",
        0x03: "sparse",
        0x04: "grid",
        0x05: "low rank",
        0x06: "random-k",
        0x07: "multiples",
        0x10: "float32",
        0x11: "uniform",
        0x12: "ladder",
        0x14: "rotated",
        0x15: "planes",
        0x20: "bitmap",
        0x21: "gaps",
        0x22: "rice",
        0x30: "raw",
        0x31: "packed",
        0x32: "zstd",
        0x33: "packed+zstd",
        0x34: "adaptive",
    }
