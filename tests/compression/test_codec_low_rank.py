"""Laws of the low rank transform: exact sums, round trips, steps and ranks that pay, safe decoding."""

from __future__ import annotations

import gc
import time
import tracemalloc

import numpy as np
import pytest
from codec_cases import resealed, schema_of, training_like
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_decoder import Frame
from test_codec_hostile import mutated

from laconic.compression import decode
from laconic.compression.factorise import factorise, principal, quantise_factors
from laconic.compression.factors import (
    EXACT,
    MAX_CODE,
    MAX_INTEGER,
    MAX_RANK,
    MIN_FACTOR_SCALE,
    FactorBytes,
    IntegerFactors,
    most_entries,
    multiplier,
    write_factors,
)
from laconic.compression.frame import wrap
from laconic.compression.quantisers.ladder import LADDER
from laconic.compression.selection import fitted
from laconic.compression.transforms.dense import DENSE
from laconic.compression.transforms.low_rank import LOW_RANK
from laconic.compression.transforms.sparse import SPARSE
from laconic.compression.transforms.zero import ZERO
from laconic.compression.wire import float32, varint
from laconic.errors import Malformed, NonFinite, UnsupportedVersion, WireError
from often import examples


def factors_of(
    rng: np.random.Generator, rows: int, columns: int, rank: int, peak: int, live: float
) -> IntegerFactors:
    """Heavy-tailed integers up to `peak`, some rows and columns all zero."""

    def side(count: int) -> np.ndarray:
        whole = np.rint(rng.standard_t(2, (count, rank)) * peak / 8).clip(-peak, peak)
        return (whole * (rng.random((count, 1)) < live)).astype(np.int32)

    codes = tuple(sorted(int(c) for c in rng.integers(0, 13, rank)))
    return IntegerFactors(side(rows), side(columns), codes, float(np.float32(rng.uniform(1e-6, 1e-2))))


@st.composite
def integer_factors(draw: st.DrawFn, peak: int = MAX_INTEGER) -> IntegerFactors:
    rows, columns = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    highest = draw(st.sampled_from([p for p in (1, 3, 40, 900, MAX_INTEGER) if p <= peak]))
    live = draw(st.sampled_from([0.0, 0.3, 1.0]))
    return factors_of(rng, rows, columns, draw(st.integers(1, 20)), highest, live)


def read_back(factors: IntegerFactors) -> IntegerFactors:
    written = write_factors(factors)
    assert written is not None
    alphabet, body = written
    rows, columns = len(factors.left), len(factors.right)
    return FactorBytes(rows, columns, factors.codes, factors.scale, alphabet, memoryview(body)).decode()


def same(a: IntegerFactors, b: IntegerFactors) -> bool:
    return (
        (a.left == b.left).all() and (a.right == b.right).all() and (a.codes, a.scale) == (b.codes, b.scale)
    )


def product(factors: IntegerFactors) -> np.ndarray:
    out = np.zeros(len(factors.left) * len(factors.right), np.float32)
    factors.fill(out)
    return out


def section(part: bytes, shape: tuple[int, ...]) -> bytes:
    return wrap(schema_of(shape), (), [part])


def rest_of(values: np.ndarray, step: float) -> bytes:
    positions = np.flatnonzero(np.abs(values) >= 0.6 * step)
    rungs = fitted(values[positions], 8) if positions.size else None
    if rungs is None:
        return ZERO.write()
    return SPARSE.write(
        positions, values.size, LADDER.write(rungs.negative, rungs.levels, rungs.ladder, 3), 3
    )


# The bytes.


@given(integer_factors())
@settings(deadline=None, max_examples=examples(60))
def test_factors_are_a_round_trip(factors):
    assert same(read_back(factors), factors)


def test_every_magnitude_is_a_round_trip():
    column = np.arange(MAX_INTEGER + 1, dtype=np.int32)[:, None]
    factors = IntegerFactors(column * [[1]], -column[:7] * [[1]], (0,), 1.0)
    assert same(read_back(factors), factors)


def test_dead_rows_and_columns_cost_a_fraction_of_a_bit():
    rng = np.random.default_rng(3)
    small = factors_of(rng, 60, 60, 6, 40, 1.0)
    left, right = np.zeros((600, 6), np.int32), np.zeros((600, 6), np.int32)
    left[::10], right[:60] = small.left, small.right
    wide = IntegerFactors(left, right, small.codes, small.scale)
    # A tenth is live: 0.47 bit of entropy a line where they lie at random.
    assert len(write_factors(wide)[1]) < len(write_factors(small)[1]) + 0.5 * 1200 / 8


# The product.


@given(integer_factors(peak=40), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=examples(60))
def test_the_sum_has_the_same_bits_in_any_order(factors, random):
    if factors.ceiling() >= EXACT:
        with pytest.raises(Malformed):
            product(factors)
        return
    order = list(range(factors.rank))
    random.shuffle(order)
    whole = np.zeros((len(factors.left), len(factors.right)), np.float32)
    for k in order:
        weighted = np.float32(multiplier(factors.codes[k])) * factors.left[:, k].astype(np.float32)
        whole += np.outer(weighted, factors.right[:, k].astype(np.float32))
    exact = (factors.left.astype(object) * [multiplier(c) for c in factors.codes]) @ factors.right.T.astype(
        object
    )
    assert (whole.astype(np.int64) == exact).all()
    assert product(factors).tobytes() == (whole * np.float32(factors.scale) + np.float32(0)).tobytes()


@pytest.mark.parametrize("last", [0, 1])
def test_sums_are_allowed_up_to_what_float32_holds(last):
    # 4 * 4095 * 1024 + 4 * 1023 * 1 = 2**24 - 4; one more of the small product is too much.
    left = np.array([[4095, 1023 + last]], np.int32)
    factors = IntegerFactors(left, np.array([[1024, 1], [-1024, -1], [-1024, 1]], np.int32), (0, 0), 1.0)
    assert factors.ceiling() == EXACT - 4 + 4 * last
    if last:
        with pytest.raises(Malformed, match="sum"):
            product(factors)
    else:
        assert product(factors).tolist() == [2**24 - 4, 4 - 2**24, -(4 * 4095 * 1024 - 4 * 1023)]


def test_a_product_beyond_float32_is_refused():
    factors = IntegerFactors(np.full((2, 1), 900, np.int32), np.full((2, 1), 900, np.int32), (0,), 2.0**120)
    with pytest.raises(NonFinite):
        product(factors)


@given(integer_factors(peak=40))
@settings(deadline=None, max_examples=examples(30))
def test_no_zero_is_negative(factors):
    if factors.ceiling() < EXACT:
        values = product(factors)
        assert not np.signbit(values[values == 0]).any()


# The transform.


@given(st.integers(0, 999), st.integers(4, 40), st.integers(4, 60), st.sampled_from([0.3, 1.0, 3.0, 8.0]))
@settings(deadline=None, max_examples=examples(40))
def test_a_tensor_is_the_product_plus_the_rest_and_the_specification_agrees(seed, rows, columns, kappa):
    rng = np.random.default_rng(seed)
    matrix = training_like(schema_of((rows, columns)), rng).reshape(rows, columns)
    step = kappa * float(np.sqrt(np.mean(matrix**2))) + 1e-9
    factors = quantise_factors(matrix, principal(matrix, 0.12 * step**2), 0.12 * step**2)
    if factors is None:
        return
    low = product(factors)
    nested = rest_of(matrix.ravel() - low, step)
    frame = section(LOW_RANK.write(factors, nested), (rows, columns))
    decoded = decode(frame, schema_of((rows, columns)), limit_bytes=1 << 20)
    rest = decode(section(nested, (rows, columns)), schema_of((rows, columns)), limit_bytes=1 << 20)
    assert decoded.tobytes() == (low + rest).tobytes()
    spec = np.array(Frame(frame).vector([rows * columns]), np.float32)
    assert spec.tobytes() == decoded.tobytes()


def test_a_sum_beyond_float32_is_refused():
    half = IntegerFactors(np.full((9, 1), 4, np.int32), np.full((9, 1), 2, np.int32), (0,), 2.0**122)
    quantised = b"\x12" + float32(2.0**119) + b"\x01" + (256).to_bytes(2, "little") + b"\x31\x00"
    frame = section(LOW_RANK.write(half, SPARSE.write(np.array([5]), 81, quantised, 3)), (9, 9))
    with pytest.raises(NonFinite):
        decode(frame, schema_of((9, 9)), limit_bytes=1 << 20)


def wrong_parts() -> dict[str, tuple[bytes, type[WireError]]]:
    """Parts for a tensor of 30 by 40, each wrong in one way."""
    rng = np.random.default_rng(5)
    good = LOW_RANK.write(factors_of(rng, 30, 40, 2, 3, 0.7), ZERO.write())
    head = varint(40) + b"\x02" + float32(1.0) + b"\x00\x01"
    return {
        "no columns": (b"\x05\x00" + good[2:], Malformed),
        "columns that do not divide": (b"\x05\x29" + good[2:], Malformed),
        "rank 0": (good[:2] + b"\x00" + good[3:], Malformed),
        "more entries than values": (good[:2] + b"\x12" + good[3:], Malformed),
        "tiny scale": (good[:3] + float32(MIN_FACTOR_SCALE / 2) + good[7:], Malformed),
        "NaN scale": (good[:3] + float32(np.nan) + good[7:], NonFinite),
        "multiplier": (good[:7] + bytes([MAX_CODE + 1]) + good[8:], Malformed),
        "alphabet 0": (b"\x05" + head + b"\x00\x00\x01", Malformed),
        "alphabet 36": (b"\x05" + head + b"\x24\x00\x01", Malformed),
        "length": (b"\x05" + head + b"\x03\x7f\x01", Malformed),
        "nested dense": (good[:-1] + DENSE.write(b"\x10" + bytes(4 * 1200)), UnsupportedVersion),
        "nested low rank": (good[:-1] + good, UnsupportedVersion),
    }


@pytest.mark.parametrize("name", wrong_parts())
def test_a_wrong_part_is_refused(name):
    part, error = wrong_parts()[name]
    with pytest.raises(error):
        decode(section(part, (30, 40)), schema_of((30, 40)), limit_bytes=1 << 20)


def test_mutated_frames_raise_wire_errors_only_and_stay_in_memory():
    rng = np.random.default_rng(11)
    shape, schema = (30, 40), schema_of((30, 40))
    matrix = training_like(schema, rng).reshape(shape)
    price = 0.12 * float(np.mean(matrix**2))
    factors = quantise_factors(matrix, principal(matrix, price), price)
    assert factors is not None
    frame = section(LOW_RANK.write(factors, rest_of(matrix.ravel() - product(factors), price**0.5)), shape)
    gc.collect()
    tracemalloc.start()
    before, refused = tracemalloc.get_traced_memory()[0], 0
    for _ in range(600):
        bad = resealed(frame[:14] + mutated(frame[14:-4], rng) + frame[-4:])
        try:
            assert np.isfinite(decode(bad, schema, limit_bytes=1 << 20)).all()
        except WireError:
            refused += 1
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < 2 << 20
    assert refused > 200


def test_a_short_frame_cannot_ask_for_long_work():
    rows, columns, rank = 4096, 2048, 127
    codes = tuple(min(k, MAX_CODE) for k in range(rank))
    head = varint(columns) + bytes([rank]) + float32(1.0) + bytes(codes)
    schema = schema_of((rows, columns))
    refused = 0
    rng = np.random.default_rng(1)
    started = time.process_time()
    for body in (b"", *(rng.bytes(60) for _ in range(2)), b"\xff" * 400):
        part = b"\x05" + head + b"\x23" + varint(len(body)) + body + ZERO.write()
        try:
            decode(section(part, (rows, columns)), schema, limit_bytes=1 << 26)
        except Malformed:
            refused += 1
    assert refused >= 3
    assert time.process_time() - started < 20


def test_factors_too_regular_for_the_bound_are_not_written():
    left = np.ones((3000, 60), np.int32)
    factors = IntegerFactors(left, np.ones((3000, 60), np.int32), (0,) * 60, 1.0)
    assert LOW_RANK.write(factors, ZERO.write()) is None


def test_decoding_needs_less_than_the_tensor_again():
    rows, columns = 2048, 1024
    rank = min(MAX_RANK, most_entries(rows * columns) // (rows + columns))
    factors = factors_of(np.random.default_rng(6), rows, columns, rank, 3, 1.0)
    part = LOW_RANK.write(factors, ZERO.write())
    frame, schema = section(part, (rows, columns)), schema_of((rows, columns))
    out_bytes = 4 * rows * columns
    gc.collect()
    tracemalloc.start()
    decode(frame, schema, limit_bytes=out_bytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * out_bytes + (2 << 20)


# Factors from a matrix.


@given(st.integers(0, 999), st.integers(1, 60), st.integers(1, 60), st.integers(1, 12))
@settings(deadline=None, max_examples=examples(40))
def test_factors_are_orthonormal_and_never_better_than_the_best(seed, rows, columns, rank):
    rng = np.random.default_rng(seed)
    matrix = training_like(schema_of((rows, columns)), rng).reshape(rows, columns)
    found = factorise(matrix, rank)
    r = min(rank, rows, columns)
    best = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    assert np.allclose(found.left.T @ found.left, np.eye(r), atol=1e-4)
    assert np.allclose(found.right.T @ found.right, np.eye(r), atol=1e-4)
    assert (found.sizes <= best[:r] * (1 + 1e-4) + 1e-9).all()
    left = matrix - found.left * found.sizes @ found.right.T
    norm = float(np.linalg.norm(matrix))
    assert np.linalg.norm(left) >= np.sqrt(np.sum(best[r:] ** 2)) - 1e-4 * norm


def test_a_start_from_the_round_before_saves_an_iteration():
    rng = np.random.default_rng(8)
    shape = (80, 120)
    before = rng.standard_normal((80, 4)) @ rng.standard_normal((4, 120)) + rng.standard_normal(shape)
    after = (before + 0.3 * rng.standard_normal(shape)).astype(np.float32)
    known = factorise(before.astype(np.float32), 4).right.T
    best = np.sum(np.linalg.svd(after, compute_uv=False)[:4] ** 2)
    warm = np.sum(factorise(after, 4, known, iterations=1).sizes ** 2)
    cold = np.sum(factorise(after, 4, iterations=1).sizes ** 2)
    assert cold < 0.95 * best < 0.99 * best < warm <= best * 1.0001


def test_a_start_of_another_width_is_ignored():
    matrix = np.random.default_rng(1).standard_normal((20, 30)).astype(np.float32)
    strange = factorise(matrix, 3, np.ones((3, 29), np.float32))
    assert (strange.sizes == factorise(matrix, 3).sizes).all()


@pytest.mark.parametrize("magnitude", [1e-37, 1e-20, 1.0, 1e20, 2.0**110])
def test_magnitudes_do_not_matter(magnitude):
    rng = np.random.default_rng(2)
    plain = training_like(schema_of((50, 70)), rng).reshape(50, 70)
    exponent = np.frexp(magnitude)[1]
    matrix = np.ldexp(plain, exponent)
    price = 0.5 * float(np.mean(plain.astype(np.float64) ** 2)) * 4.0**exponent
    factors = quantise_factors(matrix, principal(matrix, price), price)
    if magnitude < 1e-30:
        assert factors is None
        return
    assert factors is not None
    left = matrix.ravel().astype(np.float64) - product(factors)
    assert np.linalg.norm(left) < 0.5 * np.linalg.norm(matrix.astype(np.float64))


@pytest.mark.parametrize("matrix", [np.zeros((9, 9)), np.ones((1, 1)), np.ones((1, 50)), np.ones((50, 1))])
def test_where_nothing_is_won_there_are_no_factors(matrix):
    matrix = matrix.astype(np.float32)
    price = 0.12
    assert quantise_factors(matrix, principal(matrix, price), price) is None


def test_noise_has_no_factors_worth_their_bits():
    matrix = np.random.default_rng(4).standard_normal((120, 150)).astype(np.float32)
    for kappa in (1.0, 2.0, 4.0):
        price = 0.12 * kappa**2
        assert quantise_factors(matrix, principal(matrix, price), price) is None


def test_steps_grow_until_sums_are_exact():
    matrix = np.outer(np.geomspace(1, 1e4, 90), np.geomspace(1e4, 1, 90)).astype(np.float32)
    price = 1e-9
    factors = quantise_factors(matrix, principal(matrix, price), price)
    assert factors is not None
    assert factors.ceiling() < EXACT
    assert np.linalg.norm(matrix.ravel() - product(factors)) < 1e-2 * np.linalg.norm(matrix)


@pytest.mark.parametrize("magnitude", [1e-20, 1.0, 1e30])
@pytest.mark.parametrize("price", [0.0, 1e-300, 1e300, np.inf])
def test_any_price_has_an_answer(price, magnitude):
    rng = np.random.default_rng(3)
    matrix = (training_like(schema_of((30, 40)), rng).reshape(30, 40) * magnitude).astype(np.float32)
    factors = quantise_factors(matrix, principal(matrix, price), price)
    if price > 1:
        assert factors is None
    elif factors is not None:
        exact = matrix.ravel().astype(np.float64)
        assert np.linalg.norm(exact - product(factors)) < 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize("kappa", [1.0, 2.0, 4.0])
def test_factors_earn_their_bytes(kappa):
    """Factors lower the Lagrangian, and so does the last of their components."""
    rng = np.random.default_rng(7)
    shape = (200, 240)
    spectrum = np.array([12, 8, 5, 3])
    matrix = rng.standard_normal((200, 4)) * spectrum @ rng.standard_normal((4, 240))
    matrix = (matrix + rng.standard_normal(shape)).astype(np.float32)
    step = kappa * float(np.sqrt(np.mean(matrix**2)))
    price = 0.12 * step**2

    def lagrangian(factors: IntegerFactors | None) -> float:
        low = product(factors) if factors else np.zeros(matrix.size, np.float32)
        nested = rest_of(matrix.ravel() - low, step)
        part = LOW_RANK.write(factors, nested) if factors else nested
        decoded = decode(section(part, shape), schema_of(shape), limit_bytes=1 << 20)
        return float(np.sum((matrix.ravel() - decoded) ** 2)) + price * 8 * len(part)

    found = quantise_factors(matrix, principal(matrix, price), price)
    assert found is not None
    assert lagrangian(found) < 0.6 * lagrangian(None)
    less = IntegerFactors(found.left[:, :-1], found.right[:, :-1], found.codes[:-1], found.scale)
    assert lagrangian(found) < lagrangian(less if less.codes else None)


def test_directions_for_the_next_round_are_few_and_enough():
    rng = np.random.default_rng(9)
    matrix = (rng.standard_normal((90, 3)) @ rng.standard_normal((3, 110)) * 2).astype(np.float32)
    matrix += 0.1 * rng.standard_normal((90, 110)).astype(np.float32)
    price = 0.12 * float(np.mean(matrix**2))
    cold = principal(matrix, price)
    memory = cold.right.T
    assert memory.shape[1] == 110
    assert 3 <= len(memory) <= 5
    warm = principal(matrix, price, memory)
    assert np.allclose(warm.sizes[:3], cold.sizes[:3], rtol=1e-3)
