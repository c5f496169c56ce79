"""Laws of pieces: they say what `decode` says, no value twice, in few stretches, and refuse what it does."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from codec_cases import SETTINGS, frame_of, schema_of, training_like
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compression import Piece, decode, pieces
from laconic.compression.factors import IntegerFactors
from laconic.compression.frame import wrap
from laconic.compression.piece import FOLD_BLOCK, Product
from laconic.compression.quantisers.float32 import FLOAT32
from laconic.compression.transforms.low_rank import LOW_RANK
from laconic.compression.wire import varint
from laconic.errors import NonFinite
from laconic.schema import Vector
from often import examples

LIMIT_BYTES = 1 << 22


def put_together(update: Iterable[Piece], size: int) -> Vector:
    """The vector that pieces stand for, if no place comes twice and their bounds hold."""
    out, seen = np.zeros(size, np.float32), np.zeros(size, np.int64)
    for piece in update:
        for where, values in piece.blocks():
            assert values.size <= FOLD_BLOCK
            assert np.abs(values).max(initial=0) <= piece.bound
            stretches = [where] if isinstance(where, np.ndarray) else where
            at = 0
            for stretch in stretches:
                count = seen[stretch].size
                out[stretch] = values[at : at + count]
                seen[stretch] += 1
                at += count
            assert at == values.size
    assert seen.max(initial=0) <= 1
    # A zero may have either sign.
    out += np.float32(0)
    return out


@pytest.mark.parametrize("name", SETTINGS)
def test_pieces_are_what_decode_gives(name: str) -> None:
    rng = np.random.default_rng(3)
    schema = schema_of((180, 110), (3,), (40, 30, 5), (1,), (7, 7), (150, 140))
    frame = frame_of(training_like(schema, rng), schema, SETTINGS[name], rng)
    decoded = decode(frame, schema, limit_bytes=LIMIT_BYTES)
    together = put_together(pieces(frame, schema, limit_bytes=LIMIT_BYTES), schema.size)
    assert together.tobytes() == (decoded + np.float32(0)).tobytes()


@given(
    st.integers(0, 999),
    st.sampled_from([(1, 1), (500, 7), (90, 1030), (3, 2 * FOLD_BLOCK + 5), (2 * FOLD_BLOCK, 1)]),
    st.sampled_from([0.0, 0.1, 0.9, 1.0]),
)
@settings(deadline=None, max_examples=examples(60))
def test_blocks_of_a_product_are_the_product_plus_the_rest(
    seed: int, shape: tuple[int, int], live: float
) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = shape
    left = rng.integers(-9, 10, (rows, 2)) * (rng.random((rows, 1)) < live)
    right = rng.integers(-9, 10, (columns, 2)).astype(np.int32)
    factors = IntegerFactors(left.astype(np.int32), right, (0, 5), float(np.float32(1e-3)))
    where = np.flatnonzero(rng.random(rows * columns) < 20 / (rows * columns))
    values = rng.normal(0, 0.1, where.size).astype(np.float32)
    expected = np.zeros(4 + rows * columns, np.float32)
    factors.fill(expected[4:])
    expected[4:][where] += values
    bound = factors.bound() + float(np.abs(values).max(initial=0))
    piece = Product(4, factors, where, values, bound)
    assert put_together([piece], expected.size).tobytes() == (expected + np.float32(0)).tobytes()


def test_rows_that_alternate_do_not_make_a_stretch_each() -> None:
    rows, columns = 40_000, 5
    left = (np.arange(rows) % 2).astype(np.int32)[:, None]
    factors = IntegerFactors(left, np.ones((columns, 1), np.int32), (0,), 1.0)
    piece = Product(0, factors, np.empty(0, np.int64), np.empty(0, np.float32), factors.bound())
    blocks = [(len(where), values.size) for where, values in piece.blocks()]
    assert sum(size for _, size in blocks) == rows * columns - columns
    assert sum(stretches for stretches, _ in blocks) == len(blocks)


@pytest.mark.parametrize("fine", [True, False])
def test_a_sum_beyond_float32_is_refused_before_any_piece_is_used(fine: bool) -> None:
    # The bound is beyond float32 either way; the one sum there is, or is not.
    factors = IntegerFactors(np.full((9, 1), 4, np.int32), np.full((9, 1), 2, np.int32), (0,), 2.0**122)
    largest = np.float32(-(2.0**127) if fine else 2.0**127) * np.float32(1.999)
    # Sparse, one value, a raw bitmap, float32.
    nested = b"\x03\x01\x20\x30" + bytes(5) + b"\x01" + bytes(75) + FLOAT32.write(np.array([largest]))
    part = LOW_RANK.write(factors, nested)
    assert part is not None
    schema = schema_of((9, 9))
    frame = wrap(schema, (), [part])
    if fine:
        together = put_together(pieces(frame, schema, limit_bytes=LIMIT_BYTES), 81)
        assert together.tobytes() == decode(frame, schema, limit_bytes=LIMIT_BYTES).tobytes()
        return
    with pytest.raises(NonFinite):
        decode(frame, schema, limit_bytes=LIMIT_BYTES)
    with pytest.raises(NonFinite):
        list(pieces(frame, schema, limit_bytes=LIMIT_BYTES))


def test_a_rest_of_many_values_comes_as_a_vector() -> None:
    rng = np.random.default_rng(2)
    factors = IntegerFactors(
        rng.integers(-9, 10, (40, 1)).astype(np.int32),
        rng.integers(-9, 10, (50, 1)).astype(np.int32),
        (0,),
        1.0,
    )
    schema = schema_of((40, 50))
    for kept in (2000 // 4, 2000 // 4 + 1):
        bitmap = (rng.permutation(2000) < kept).astype(np.uint8)
        values = rng.standard_normal(kept).astype(np.float32)
        nested = b"\x03" + varint(kept) + b"\x20\x30" + bitmap.tobytes() + FLOAT32.write(values)
        part = LOW_RANK.write(factors, nested)
        assert part is not None
        frame = wrap(schema, (), [part])
        (piece,) = pieces(frame, schema, limit_bytes=LIMIT_BYTES)
        assert isinstance(piece, Product) == (kept == 500)
        decoded = decode(frame, schema, limit_bytes=LIMIT_BYTES)
        assert put_together([piece], 2000).tobytes() == (decoded + np.float32(0)).tobytes()
