"""Laws of random-k, of rotated codes, of byte planes, and of the scales of signs."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import spec_decoder
from codec_cases import LIMIT_BYTES, schema_of, training_like
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from laconic.compression import CodecSettings, decode, encode, inspect
from laconic.compression.frame import wrap
from laconic.compression.quantisers.planes import FLOAT_PLANES
from laconic.compression.quantisers.rotated import LEVELS, PEAK, ROTATED, hadamard
from laconic.compression.seeded import MAX_SEED, derived, sign_bits, support, words
from laconic.compression.selection import beyond, largest, sampled_threshold
from laconic.compression.stages import finite
from laconic.compression.wire import Reader, float32, varint
from laconic.errors import ConfigError, Malformed, NonFinite
from often import examples

seeds = st.integers(0, MAX_SEED)
FINITE = arrays.arrays(
    np.uint32, st.integers(1, 60), elements=st.integers(0, 0xFFFFFFFF).filter(lambda b: b >> 23 & 255 < 255)
)


def alone(**chosen) -> CodecSettings:
    """Settings that spare no tensor of these tests for its size."""
    return CodecSettings(small_tensor_values=0, **chosen)


def rotated(values: np.ndarray, bits: int, seed: int, *, unbiased: bool) -> np.ndarray:
    """Written and read back."""
    body = ROTATED.write(values, bits, 3, seed, unbiased=unbiased)
    reader = Reader(memoryview(body)[1:])
    read = ROTATED.read(reader, values.size)
    assert not reader.left
    return np.concatenate(list(read.blocks()))


def within_chance(trials: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the mean over the first axis is what was expected.

    To 5 of its own standard errors, and a dozen counts of an event that is too rare to be seen (Poisson).
    """
    error = 5 * trials.std(axis=0, ddof=1) / np.sqrt(len(trials)) + 12 * np.ptp(trials) / len(trials)
    return bool((np.abs(trials.mean(axis=0) - expected) <= error).all())


# Words and positions from a seed


def test_words_are_those_of_splitmix64():
    """The first outputs for the seed 1234567, as in every published implementation."""
    assert words(1234567, 0, 3).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(seeds, st.integers(0, 1 << 30), st.integers(1, 40))
@settings(deadline=None)
def test_words_follow_from_seed_and_index_alone(seed, start, count):
    got = words(seed, start, count).tolist()
    assert got == [spec_decoder.word(seed, i) for i in range(start, start + count)]
    assert got[0] == derived(seed, start)


@given(seeds, st.integers(1, 3000), st.floats(0, 1))
@settings(deadline=None)
def test_a_support_has_the_asked_size_and_is_that_of_the_specification(seed, values, share):
    kept = max(1, round(share * values))
    mask = support(seed, values, kept)
    assert mask.shape == (values,)
    assert np.count_nonzero(mask) == kept
    if values <= 300:
        assert np.flatnonzero(mask).tolist() == spec_decoder.support(seed, values, kept)


def test_a_smaller_support_lies_in_a_larger_one_of_the_same_seed():
    small, large = support(5, 100_000, 1000), support(5, 100_000, 7000)
    assert not (small & ~large).any()


@pytest.mark.parametrize(("values", "kept"), [(1, 1), (3, 1), (10, 3), (64, 8), (1000, 37), (70_000, 900)])
def test_every_position_is_as_likely_as_every_other(values, kept):
    trials, counts = 2000, np.zeros(values)
    for i in range(trials):
        counts += support(derived(77, i), values, kept)
    share = kept / values
    deviation = np.sqrt(trials * share * (1 - share))
    # The largest of 70,000 normal deviates stays below 5.5.
    assert np.abs(counts - trials * share).max() <= 6 * deviation + 1e-9


def test_two_positions_are_together_as_often_as_by_chance():
    values, kept, trials = 40, 10, 20_000
    together = np.zeros((values, values))
    for i in range(trials):
        at = np.flatnonzero(support(derived(78, i), values, kept))
        together[np.ix_(at, at)] += 1
    share = kept * (kept - 1) / (values * (values - 1))
    apart = together[~np.eye(values, dtype=bool)]
    assert np.abs(apart - trials * share).max() <= 6 * np.sqrt(trials * share * (1 - share))


# Random-k


def test_devices_that_share_a_seed_send_the_same_positions():
    schema = schema_of((50, 40), (300,))
    rng = np.random.default_rng(0)
    chosen = alone(kind="randomk", density=0.1, bits=32)
    updates = [rng.standard_normal(schema.size).astype(np.float32) for _ in range(3)]
    decoded = [
        decode(encode(u, schema, chosen, rng, seed=9).frame, schema, limit_bytes=LIMIT_BYTES) for u in updates
    ]
    assert (decoded[0].astype(bool) == decoded[1].astype(bool)).all()
    assert np.count_nonzero(decoded[0]) == 230
    # The sum of what was sent is what was sent of the sum: no position needs to be known to add up.
    kept = decoded[0] != 0
    assert (sum(decoded)[kept] == sum(updates)[kept]).all()
    other = decode(encode(updates[0], schema, chosen, rng, seed=10).frame, schema, limit_bytes=LIMIT_BYTES)
    assert (other.astype(bool) != decoded[0].astype(bool)).any()


def test_no_position_travels():
    schema = schema_of((100_000,))
    update = np.random.default_rng(0).standard_normal(schema.size).astype(np.float32)
    chosen = alone(kind="randomk", density=0.01, bits=32)
    frame = encode(update, schema, chosen, np.random.default_rng(0)).frame
    assert len(frame) <= 4 * 1000 + 40


@pytest.mark.parametrize("bits", [4, 32])
def test_random_k_is_unbiased_where_it_promises_to_be(bits):
    schema, trials = schema_of((200,)), 600
    update = training_like(schema, np.random.default_rng(1))
    chosen = alone(kind="randomk", density=0.1, bits=bits, stochastic=True, zstd_level=1)
    rng = np.random.default_rng(2)
    got = np.array(
        [decode(encode(update, schema, chosen, rng).frame, schema, limit_bytes=1600) for _ in range(trials)]
    )
    assert within_chance(got, update)


def test_random_k_without_the_promise_sends_values_as_they_are():
    schema = schema_of((400,))
    update = training_like(schema, np.random.default_rng(1))
    chosen = alone(kind="randomk", density=0.1, bits=32)
    decoded = decode(encode(update, schema, chosen, np.random.default_rng(2)).frame, schema, limit_bytes=1600)
    assert (decoded[decoded != 0] == update[decoded != 0]).all()


# Rotated


@pytest.mark.parametrize("size", [1, 2, 64, 512])
def test_the_fast_transform_is_the_matrix(size):
    index = np.arange(size)
    ones = np.array([[bin(j & k).count("1") for k in index] for j in index])
    x = np.random.default_rng(0).integers(-63, 64, (3, size)).astype(np.int32)
    assert (hadamard(x) == x @ (1 - 2 * (ones % 2))).all()
    assert (hadamard(hadamard(x)) == size * x).all()


@given(st.integers(1, 3000), st.sampled_from([1, 2, 3, 4]), st.booleans(), seeds)
@settings(deadline=None)
def test_rotated_values_are_those_of_the_specification(count, bits, unbiased, seed):
    values = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    body = ROTATED.write(values, bits, 3, seed, unbiased=unbiased)
    got = np.concatenate(list(ROTATED.read(Reader(memoryview(body)[1:]), count).blocks()))
    assert got.shape == (count,)
    if count <= 400:
        wanted = np.array(spec_decoder.Frame(body).quantised(count), "<f4")
        assert got.astype("<f4").tobytes() == wanted.tobytes()


@given(st.integers(1, 3000), st.sampled_from([1, 2, 3, 4]), seeds)
@settings(deadline=None)
def test_the_least_squares_scale_never_adds_error(count, bits, seed):
    values = np.random.default_rng(count).standard_t(2, count).astype(np.float32)
    left = values - rotated(values, bits, seed, unbiased=False).astype(np.float64)
    assert np.linalg.norm(left) <= np.linalg.norm(values) * (1 + 1e-6)


@pytest.mark.parametrize(("bits", "expected"), [(1, 0.3634), (2, 0.1175), (3, 0.03455), (4, 0.00950)])
def test_the_error_is_that_of_the_best_quantiser_of_a_gaussian(bits, expected):
    """Max, "Quantizing for minimum distortion", IRE Trans. IT 6(1), 1960, table I, for any values."""
    rng = np.random.default_rng(3)
    heavy = np.zeros(50_000, np.float32)
    heavy[rng.choice(heavy.size, 5000, replace=False)] = rng.standard_t(3, 5000)
    normal = rng.standard_normal(50_000).astype(np.float32)
    shares = [
        np.square(v - rotated(v, bits, 4, unbiased=False)).sum() / np.square(v).sum() for v in (normal, heavy)
    ]
    assert shares[0] == pytest.approx(expected, rel=0.03)
    # What is concentrated costs less, never more.
    assert shares[1] <= expected * 1.03


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", ["normal", "one value", "two values", "constant", "falling"])
def test_rotated_codes_are_unbiased_where_they_promise_to_be(bits, kind):
    """Two unequal values are the hard case: a single round always gives the larger one alone its sign."""
    count = 200
    values = {
        "normal": np.random.default_rng(5).standard_normal(count),
        "one value": np.eye(1, count, 7)[0],
        "two values": np.eye(1, count, 7)[0] + 0.5 * np.eye(1, count, 90)[0],
        "constant": np.ones(count),
        "falling": 0.8 ** np.arange(count),
    }[kind].astype(np.float32)
    got = np.array([rotated(values, bits, derived(6, i), unbiased=True) for i in range(300)])
    assert within_chance(got, values)


def test_rotated_codes_cost_their_bits_and_a_few_scales():
    schema = schema_of((100_000,))
    update = np.random.default_rng(0).standard_normal(schema.size).astype(np.float32)
    for bits in LEVELS:
        frame = encode(update, schema, alone(kind="rotated", bits=bits), np.random.default_rng(0)).frame
        assert 8 * len(frame) / schema.size <= bits * 1.03


def test_blocks_of_zeros_are_zeros():
    values = np.zeros(20_000, np.float32)
    values[:5] = 1
    assert not rotated(values, 1, 0, unbiased=False)[-1000:].view(np.uint32).any()


def test_huge_values_are_sent_as_they_are():
    schema = schema_of((200,))
    update = np.linspace(-4 * PEAK, 4 * PEAK, 200).astype(np.float32)
    frame = encode(update, schema, alone(kind="rotated", bits=1), np.random.default_rng(0)).frame
    assert (decode(frame, schema, limit_bytes=800) == update).all()
    values = np.full(5000, PEAK, np.float32)
    for bits in LEVELS:
        for unbiased in (False, True):
            assert np.isfinite(rotated(values, bits, 1, unbiased=unbiased)).all()


# Planes


@given(FINITE)
@settings(deadline=None, max_examples=examples(40))
def test_planes_are_a_round_trip_of_every_bit(bits):
    values = bits.view(np.float32)
    body = FLOAT_PLANES.write(values, 3)
    reader = Reader(memoryview(body)[1:])
    read = FLOAT_PLANES.read(reader, values.size)
    assert not reader.left
    assert (np.concatenate(list(read.blocks())).view(np.uint32) == bits).all()
    wanted = np.array(spec_decoder.Frame(body).quantised(values.size), "<f4")
    assert (wanted.view("<u4") == bits).all()


def test_a_lossless_frame_is_smaller_than_float32_and_never_much_larger():
    schema = schema_of((300, 400), (0, 3), (7,), ())
    weights = np.random.default_rng(0).standard_normal(schema.size).astype(np.float32)
    noise = np.random.default_rng(0).integers(0, 254 << 23, schema.size).astype(np.uint32).view(np.float32)
    for update, share in ((weights, 0.87), (noise, 1.0005)):
        frame = encode(update, schema, alone(kind="lossless"), np.random.default_rng(0)).frame
        assert decode(frame, schema, limit_bytes=LIMIT_BYTES).tobytes() == update.tobytes()
        assert len(frame) <= 4 * schema.size * share


# Signs and ternary values


def test_one_bit_is_the_sign_times_the_mean_magnitude():
    """The scale with the least squared error (Bernstein et al., "signSGD", ICML 2018)."""
    schema = schema_of((5000,))
    update = training_like(schema, np.random.default_rng(1)) + np.float32(1e-9)
    frame = encode(update, schema, alone(kind="dense", bits=1), np.random.default_rng(0)).frame
    decoded = decode(frame, schema, limit_bytes=20_000)
    assert decoded == pytest.approx(np.where(update < 0, -1, 1) * np.abs(update).mean(), rel=1e-6)


def test_top_k_of_one_bit_is_sparse_ternary_compression():
    """Sattler et al., arXiv 1903.02891, algorithm 1: the sign times the mean magnitude of what is kept."""
    schema = schema_of((5000,))
    update = training_like(schema, np.random.default_rng(1))
    chosen = alone(kind="topk", density=0.02, bits=1)
    decoded = decode(
        encode(update, schema, chosen, np.random.default_rng(0)).frame, schema, limit_bytes=20_000
    )
    kept = np.argsort(-np.abs(update))[:100]
    wanted = np.zeros(5000, np.float32)
    wanted[kept] = np.sign(update[kept]) * np.abs(update[kept]).mean()
    # The mean is a multiple of 1/65535 of the largest magnitude.
    assert np.abs(decoded - wanted).max() <= np.abs(update).max() / 65535


def test_a_whole_frame_of_uniform_codes_is_unbiased_where_it_promises_to_be():
    schema = schema_of((50,), (30,))
    update = training_like(schema, np.random.default_rng(1))
    chosen = alone(kind="dense", bits=2, stochastic=True, zstd_level=1)
    rng = np.random.default_rng(2)
    got = [decode(encode(update, schema, chosen, rng).frame, schema, limit_bytes=1000) for _ in range(500)]
    assert within_chance(np.array(got), update)


# Hostile bytes

ROTATED_HEAD = b"\x02\x14\x01\x06\x01" + bytes(8)


def bad_sections() -> dict[str, tuple[bytes, type[Exception]]]:
    """Sections for a tensor of 100 values, each wrong in one way."""
    scales, codes = float32(1.0) * 2, b"\x31" + bytes(16)
    seeded = b"\x06\x05" + bytes(8)

    def head(bits: int = 1, log2: int = 6, rounds: int = 1) -> bytes:
        return b"\x02\x14" + bytes([bits, log2, rounds]) + bytes(8)

    return {
        "no kept values": (b"\x06\x00" + bytes(8) + b"\x10", Malformed),
        "more kept than values": (b"\x06" + varint(101) + bytes(8) + b"\x10" + bytes(404), Malformed),
        "a seed cut short": (b"\x06\x05" + bytes(7), Malformed),
        "values cut short": (seeded + b"\x10" + bytes(19), Malformed),
        "bits of none": (head(bits=0) + scales + codes, Malformed),
        "five bits": (head(bits=5) + scales + codes, Malformed),
        "a block too small": (head(log2=5) + scales * 2 + codes, Malformed),
        "a block far beyond the values": (head(log2=8) + scales + b"\x31" + bytes(32), Malformed),
        "no round": (head(rounds=0) + scales + codes, Malformed),
        "three rounds": (head(rounds=3) + scales + codes, Malformed),
        "NaN scale": (head() + float32(np.nan) + float32(1.0) + codes, NonFinite),
        "infinite scale": (head() + float32(1.0) + float32(np.inf) + codes, NonFinite),
        "negative scale": (head() + float32(-1.0) + float32(1.0) + codes, Malformed),
        "negative zero": (head() + float32(-0.0) + float32(1.0) + codes, Malformed),
        "subnormal scale": (head() + float32(1e-40) + float32(1.0) + codes, Malformed),
        "scale that overflows": (head() + float32(1e37) * 2 + codes, NonFinite),
        "scales cut short": (head() + float32(1.0), Malformed),
        "codes cut short": (head() + scales + codes[:-1], Malformed),
        "code wider than its bits": (head() + scales + b"\x30" + b"\x02" * 128, Malformed),
        "three planes": (b"\x02\x15" + (b"\x30" + bytes(100)) * 3, Malformed),
        "NaN in planes": (b"\x02\x15\x30" + bytes(99) + b"\xff" + (b"\x30" + bytes(100)) * 3, NonFinite),
    }


@pytest.mark.parametrize("name", bad_sections())
def test_a_section_wrong_in_one_way_is_refused(name):
    section, error = bad_sections()[name]
    schema = schema_of((100,))
    with pytest.raises(error):
        decode(wrap(schema, (), [section]), schema, limit_bytes=LIMIT_BYTES)


@pytest.mark.parametrize(
    ("bits", "log2", "rounds"), [(1, 12, 2), (2, 11, 2), (3, 10, 2), (4, 10, 2), (4, 14, 2)]
)
def test_sums_beyond_24_bits_are_refused(bits, log2, rounds):
    size = 1 << 14
    body = bytes([bits, log2, rounds]) + bytes(8) + float32(1.0) * (size >> log2) + b"\x30" + bytes(size)
    with pytest.raises(Malformed, match="largest sum"):
        ROTATED.read(Reader(memoryview(body)), size)


def test_the_largest_sums_stay_exact():
    """All codes alike, and signs chosen by the seed: no integer leaves 24 bits at the limit of each width."""
    for bits, log2, rounds in ((1, 11, 2), (2, 10, 2), (3, 9, 2), (4, 9, 2), (4, 14, 1)):
        count = 1 << log2
        body = (
            bytes([bits, log2, rounds]) + bytes(8) + float32(1.0) + b"\x30" + bytes([(1 << bits) - 1]) * count
        )
        got = np.concatenate(list(ROTATED.read(Reader(memoryview(body)), count).blocks()))
        assert np.abs(got).max() < 1 << 24
        assert (got == np.rint(got)).all()


def test_scratch_memory_of_the_new_stages_stays_below_the_dense_size():
    schema = schema_of((1_000_000,))
    update = np.random.default_rng(0).standard_normal(schema.size).astype(np.float32)
    for chosen in (
        alone(kind="randomk", density=0.9, bits=8, zstd_level=1),
        alone(kind="rotated", bits=4, zstd_level=1),
        alone(kind="lossless", zstd_level=1),
    ):
        frame = encode(update, schema, chosen, np.random.default_rng(0)).frame
        gc.collect()
        tracemalloc.start()
        decode(frame, schema, limit_bytes=4 * schema.size)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 2 * 4 * schema.size + (2 << 20), chosen.kind


def test_signs_of_a_seed_are_as_often_up_as_down():
    bits = sign_bits(3, 64, 64_000)
    assert abs(bits.mean() - 0.5) <= 5 * 0.5 / np.sqrt(bits.size)
    assert (bits[:64] == sign_bits(3, 64, 64)).all()


@pytest.mark.parametrize("bits", [5, 8, 32])
def test_rotated_codes_have_four_bits_at_most(bits):
    with pytest.raises(ConfigError):
        alone(kind="rotated", bits=bits)
    with pytest.raises(ConfigError):
        replace(alone(kind="rotated", bits=4), bits=bits)


def test_inspection_names_what_was_used():
    schema = schema_of((500,))
    update = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    for kind, bits, stages in (
        ("randomk", 8, ("random-k", "uniform")),
        ("rotated", 1, ("dense", "rotated")),
        ("lossless", 8, ("dense", "planes")),
    ):
        frame = encode(update, schema, alone(kind=kind, bits=bits), np.random.default_rng(0)).frame
        assert inspect(frame).sections[0].stages == stages


# The largest values


def by_sorting(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the largest magnitudes, the first of equal ones, zeros left out."""
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    return np.sort(order[values[order] != 0])


@given(st.integers(0, 999), st.integers(1, 2000), st.floats(0, 1), st.booleans())
@settings(deadline=None)
def test_the_largest_values_are_those_that_sorting_finds(seed, size, share, ties):
    values = np.random.default_rng(seed).standard_t(3, size).astype(np.float32)
    if ties:
        values = np.rint(values)
    count = max(1, round(share * size))
    assert largest(values, count).tolist() == by_sorting(values, count).tolist()


@pytest.mark.parametrize("kind", ["heavy", "equal", "few", "falling", "columns that a stride would miss"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.2, 0.7])
def test_a_sample_never_changes_which_values_are_the_largest(kind, share):
    size = 1 << 18
    rng = np.random.default_rng(0)
    values = {
        "heavy": rng.standard_t(2, size),
        "equal": np.ones(size),
        "few": rng.standard_normal(size) * (rng.random(size) < 0.0005),
        "falling": np.linspace(1, 0, size),
        "columns that a stride would miss": rng.standard_normal(size) * (np.arange(size) % 313 != 0),
    }[kind].astype(np.float32)
    count = round(share * size)
    assert largest(values, count).tolist() == by_sorting(values, count).tolist()


def test_a_sampled_threshold_is_right_to_its_error():
    values = np.random.default_rng(0).standard_t(3, 1_000_000).astype(np.float32)
    for count in (2000, 10_000, 100_000):
        found = beyond(values, sampled_threshold(values, count)).size
        # Five standard deviations of a sample with 100 values beyond.
        assert found == pytest.approx(count, rel=5 / np.sqrt(100))


def test_the_fastest_level_finds_the_same_values_in_little_more_bytes():
    schema = schema_of((500, 400))
    update = training_like(schema, np.random.default_rng(1))
    sizes, decoded = [], []
    for level in (1, 9):
        chosen = alone(kind="topk", density=0.01, bits=4, zstd_level=level)
        encoded = encode(update, schema, chosen, np.random.default_rng(0))
        sizes.append(len(encoded.frame))
        decoded.append(decode(encoded.frame, schema, limit_bytes=LIMIT_BYTES))
        left = np.linalg.norm(update - decoded[-1]) / np.linalg.norm(update)
        assert encoded.error == pytest.approx(left, rel=1e-5)
    assert (decoded[0] == decoded[1]).all()
    assert sizes[1] <= sizes[0] <= 1.25 * sizes[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 65_536, 99_999])
def test_one_bad_value_among_many_is_found(bad, at):
    values = np.full(100_000, 3e38, np.float32)
    assert finite(values)
    values[at] = bad
    assert not finite(values)
