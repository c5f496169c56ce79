"""Laws of the adaptive coder: round trips, one body per stream, sizes next to the entropy, hostile bodies."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_decoder import Body
from spec_decoder import frequencies as spec_frequencies

from laconic.compression import adaptive, range_coder, rans
from laconic.compression.adaptive import StreamDecoder, SymbolStream, encode_streams, runs_of
from laconic.compression.coders import CODERS, write_codes
from laconic.compression.frequencies import Model
from laconic.compression.wire import Reader
from laconic.errors import Malformed, WireError
from often import examples

ADAPTIVE = CODERS.by_number[0x34]


def drawn(seed: int, count: int, alphabet: int, contexts_count: int) -> SymbolStream:
    """Symbols of a geometric distribution, steeper from context to context; of odd seeds with a prior."""
    rng = np.random.default_rng(seed)
    contexts = rng.integers(0, contexts_count, count).astype(np.uint8)
    p = rng.uniform(0.05, 1, contexts_count)[contexts]
    symbols = np.minimum(rng.geometric(p) - 1, alphabet - 1).astype(np.uint8)
    weights = tuple(rng.integers(1, 1 << rng.integers(1, 20), contexts_count * alphabet).tolist())
    prior = weights if seed % 2 else None
    return SymbolStream(symbols, None if contexts_count == 1 else contexts, alphabet, contexts_count, prior)


def decoded(data: bytes, streams: list[SymbolStream]) -> list[np.ndarray]:
    decoder = StreamDecoder(data)
    out = [
        decoder.symbols(
            s.contexts, s.symbols.size, alphabet=s.alphabet, contexts_count=s.contexts_count, prior=s.prior
        )
        for s in streams
    ]
    decoder.finish()
    return out


def by_the_page(data: bytes, streams: list[SymbolStream]) -> list[list[int]]:
    body = Body(data)
    out = [
        body.stream(
            [0] * s.symbols.size if s.contexts is None else s.contexts.tolist(),
            s.alphabet,
            s.contexts_count,
            None if s.prior is None else np.reshape(s.prior, (-1, s.alphabet)).tolist(),
        )
        for s in streams
    ]
    body.end()
    return out


def entropy_bytes(stream: SymbolStream) -> float:
    """The empirical entropy of the symbols, each context by itself."""
    contexts = stream.contexts if stream.contexts is not None else np.zeros(stream.symbols.size, np.uint8)
    bits = 0.0
    for c in range(stream.contexts_count):
        n = np.bincount(stream.symbols[contexts == c], minlength=1)
        n = n[n > 0]
        bits -= float((n * np.log2(n / n.sum())).sum()) if n.size else 0.0
    return bits / 8


def in_lanes(streams: list[SymbolStream], lanes: int) -> bytes:
    """A body in lanes, whatever the encoder would choose; empty if it would be too short for that."""
    patch = pytest.MonkeyPatch()
    patch.setattr(adaptive, "lanes_for", lambda bits: lanes)
    try:
        return encode_streams(streams)
    finally:
        patch.undo()


streams_of_all_sizes = st.lists(
    st.builds(
        drawn,
        st.integers(0, 2**32 - 1),
        st.one_of(st.integers(0, 3), st.integers(0, 700)),
        st.one_of(st.integers(1, 20), st.just(256)),
        st.one_of(st.just(1), st.integers(1, 9)),
    ),
    max_size=4,
)


@given(streams_of_all_sizes)
@settings(deadline=None, max_examples=examples(60))
def test_streams_are_a_round_trip_here_and_by_the_page(streams):
    body = encode_streams(streams)
    for stream, ours in zip(streams, decoded(body, streams), strict=True):
        assert (ours == stream.symbols).all()
    assert by_the_page(body, streams) == [s.symbols.tolist() for s in streams]


@given(streams_of_all_sizes)
@settings(deadline=None)
def test_a_short_body_is_within_a_byte_of_its_cost(streams):
    body = encode_streams(streams)
    bits = sum(adaptive.stream_cost_bits(s) for s in streams)
    lanes_byte = len(body) > adaptive.BARE_BYTES
    assert len(body) <= bits / 8 * 1.0001 + 1 + lanes_byte


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 16, 64, 256]), st.integers(1, 12), st.integers(1, 5))
@settings(deadline=None, max_examples=examples(30))
def test_lanes_are_a_round_trip_here_and_by_the_page(seed, lanes, alphabet, contexts_count):
    streams = [drawn(seed, 30, 5, 1), drawn(seed, 6000, alphabet + 1, contexts_count), drawn(seed, 9, 3, 1)]
    body = in_lanes(streams, lanes)
    for stream, ours in zip(streams, decoded(body, streams), strict=True):
        assert (ours == stream.symbols).all()
    assert by_the_page(body, streams) == [s.symbols.tolist() for s in streams]


def test_lanes_are_used_where_they_pay():
    streams = [drawn(3, 40_000, 9, 1)]
    body = encode_streams(streams)
    assert body[0] >= 6
    assert by_the_page(body, streams) == [streams[0].symbols.tolist()]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 200])
def test_symbols_that_are_all_zero_cost_next_to_nothing(count):
    zeros = np.zeros(count, np.uint8)
    body = adaptive.encode(zeros, None, alphabet=16)
    assert len(body) <= 1
    assert (adaptive.decode(body, None, count, alphabet=16) == 0).all()


@pytest.mark.parametrize("contexts_count", [1, 3, 40])
@pytest.mark.parametrize("alphabet", [1, 2, 5, 16, 256])
@pytest.mark.parametrize("most", [0, 3, 5000, adaptive.MAX_PRIOR])
def test_frequencies_are_those_of_the_page(alphabet, contexts_count, most):
    rng = np.random.default_rng(alphabet)
    rows, prior, background = [None] * contexts_count, None, 24 * alphabet
    if most:
        drawn = rng.integers(1, most, (contexts_count, alphabet), endpoint=True)
        rows, prior = drawn.tolist(), tuple(drawn.ravel().tolist())
        background = sum(prior) // contexts_count // 128
    model = Model(alphabet, contexts_count, prior)
    for _ in range(6):
        model.counts = rng.integers(0, rng.choice([2, 50, 20_000]), (contexts_count, alphabet))
        table = model.frequencies()
        assert table.tolist() == [
            spec_frequencies(n, row, background) for n, row in zip(model.counts.tolist(), rows, strict=True)
        ]
        assert table.min() >= 1
        assert (table.sum(axis=1) == 16384).all()


@pytest.mark.parametrize(
    ("prior", "alphabet"), [((1, 2, 3), 4), ((1, 0), 2), ((1, adaptive.MAX_PRIOR + 1), 2), ((), 1)]
)
def test_a_prior_that_does_not_fit_is_refused(prior, alphabet):
    with pytest.raises(ValueError, match="weights"):
        SymbolStream(np.zeros(3, np.uint8), None, alphabet, 1, prior)
    with pytest.raises(ValueError, match="weights"):
        StreamDecoder(b"").symbols(None, 3, alphabet=alphabet, prior=prior)


def test_symbols_as_their_prior_says_cost_hardly_more_than_their_entropy():
    rng = np.random.default_rng(2)
    weights = np.array([400, 200, 100, 50, 25, 25])
    symbols = rng.choice(6, 200, p=weights / weights.sum()).astype(np.uint8)
    known = -float(np.log2(weights[symbols] / weights.sum()).sum())
    learnt = adaptive.stream_cost_bits(SymbolStream(symbols, None, 6))
    told = adaptive.stream_cost_bits(SymbolStream(symbols, None, 6, 1, tuple((weights * 500).tolist())))
    assert told < known + 3
    assert told < learnt - 3


@given(st.integers(0, 100_000))
@settings(deadline=None, max_examples=examples(30))
def test_runs_cover_a_stream_once(count):
    runs = list(runs_of(count))
    assert [a for a, _ in runs] == [0, *(b for _, b in runs)][: len(runs)]
    assert not count or runs[-1][1] == count
    assert all(0 < b - a <= 2048 for a, b in runs)


STATIONARY = {
    "signs, half": (2, lambda rng, n: rng.integers(0, 2, n)),
    "signs, 0.9": (2, lambda rng, n: rng.random(n) < 0.1),
    "steep levels": (8, lambda rng, n: np.minimum(rng.geometric(0.7, n) - 1, 7)),
    "levels": (16, lambda rng, n: np.minimum(rng.geometric(0.4, n) - 1, 15)),
    "gap buckets": (12, lambda rng, n: np.minimum(np.log2(rng.geometric(0.05, n)).astype(int), 11)),
    "quantised Laplacian": (32, lambda rng, n: np.clip(np.rint(rng.laplace(0, 2, n)) + 15, 0, 31)),
}


@pytest.mark.parametrize("name", STATIONARY)
@pytest.mark.parametrize(("count", "share"), [(10_000, 0.02), (100_000, 0.01)])
def test_stationary_streams_are_near_their_entropy(name, count, share):
    alphabet, draw = STATIONARY[name]
    symbols = np.asarray(draw(np.random.default_rng(count), count)).astype(np.uint8)
    stream = SymbolStream(symbols, None, alphabet)
    body = encode_streams([stream])
    assert len(body) <= (1 + share) * entropy_bytes(stream)
    assert adaptive.stream_cost_bits(stream) / 8 == pytest.approx(len(body), rel=0.01)
    assert (decoded(body, [stream])[0] == symbols).all()


@pytest.mark.parametrize("count", [20, 100, 500])
def test_fair_signs_hardly_expand(count):
    sizes = []
    for seed in range(20):
        signs = np.random.default_rng(seed).integers(0, 2, count).astype(np.uint8)
        sizes.append(len(adaptive.encode(signs, None, alphabet=2)))
    assert np.mean(sizes) <= count / 8 * 1.01 + 1


def test_drift_is_followed():
    rng = np.random.default_rng(1)
    symbols = np.concatenate([rng.random(30_000) < p for p in (0.02, 0.5, 0.02, 0.5)]).astype(np.uint8)
    each = sum(entropy_bytes(SymbolStream(part, None, 2)) for part in np.split(symbols, 4))
    assert len(adaptive.encode(symbols, None, alphabet=2)) <= 1.2 * each
    assert each < 0.7 * entropy_bytes(SymbolStream(symbols, None, 2))


@given(streams_of_all_sizes, st.data())
@settings(deadline=None, max_examples=examples(200))
def test_a_mutated_body_is_refused_or_means_other_symbols(streams, data):
    body = bytearray(encode_streams(streams))
    if not body:
        body = bytearray(b"\x01")
    else:
        kind = data.draw(st.sampled_from(["flip", "cut", "grow"]))
        where = data.draw(st.integers(0, len(body) - 1))
        if kind == "flip":
            body[where] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del body[where]
        else:
            body.insert(where, data.draw(st.integers(0, 255)))
    try:
        out = decoded(bytes(body), streams)
    except WireError:
        return
    assert all((o < s.alphabet).all() for o, s in zip(out, streams, strict=True))
    again = [replace(s, symbols=o) for o, s in zip(out, streams, strict=True)]
    if len(body) <= adaptive.BARE_BYTES:
        assert encode_streams(again) == bytes(body)


@given(st.binary(max_size=3000), st.integers(0, 400), st.integers(1, 256), st.integers(1, 4), st.data())
@settings(deadline=None, max_examples=examples(200))
def test_any_bytes_are_refused_or_decoded(body, count, alphabet, contexts_count, data):
    if len(body) > adaptive.BARE_BYTES:
        body = bytes([data.draw(st.integers(0, 14))]) + body
    contexts = (np.arange(count) % contexts_count).astype(np.uint8)
    try:
        symbols = adaptive.decode(body, contexts, count, alphabet=alphabet, contexts_count=contexts_count)
    except WireError:
        return
    assert symbols.shape == (count,)
    assert not count or int(symbols.max()) < alphabet


@pytest.mark.parametrize("lanes", [64, 256])
def test_bodies_in_lanes_are_refused_when_changed(lanes):
    stream = drawn(5, 8000, 6, 1)
    body = in_lanes([stream], lanes)
    rng = np.random.default_rng(lanes)
    refused = 0
    for _ in range(100):
        changed = bytearray(body)
        changed[int(rng.integers(len(body)))] ^= 1 << int(rng.integers(8))
        try:
            out = decoded(bytes(changed), [stream])[0]
        except Malformed:
            refused += 1
        else:
            assert not (out == stream.symbols).all()
    assert refused >= 90
    for cut in {len(body) - 2, len(body) - 1, *range(adaptive.BARE_BYTES + 1, len(body), 97)}:
        with pytest.raises(Malformed):
            decoded(body[:cut], [stream])
    with pytest.raises(Malformed):
        decoded(body + b"\1\2", [stream])


@pytest.mark.parametrize(
    ("body", "thing"),
    [
        (b"\0", "last byte"),
        (b"\1" * 20, "length"),
        (b"\x0d" + b"\1" * 600, "lanes"),
        (b"\0" + b"\1" * 512, "no byte for the lanes"),
        (b"\x0c\x10" + b"\1" * 600, "states"),
        (b"\xff\xff\xff\xff\xff\xff", "end of coded symbols|coded symbol"),
    ],
)
def test_refusals_say_what_is_wrong(body, thing):
    with pytest.raises(Malformed, match=thing):
        adaptive.decode(body, None, 3, alphabet=4)


def test_a_body_says_when_its_symbols_are_missing():
    stream = drawn(8, 9000, 6, 1)
    body = in_lanes([stream], 64)
    with pytest.raises(Malformed, match="symbols in lanes"):
        adaptive.decode(body, None, 100, alphabet=6)


def test_memory_follows_the_count():
    stream = drawn(10, 1_000_000, 16, 1)
    body = encode_streams([stream])
    tracemalloc.start()
    adaptive.decode(body, None, 1_000_000, alphabet=16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000


def test_what_a_caller_gets_wrong_is_a_value_error():
    two = np.array([0, 2], np.uint8)
    with pytest.raises(ValueError, match="symbol 2"):
        adaptive.encode(two, None, alphabet=2)
    with pytest.raises(ValueError, match="context 2"):
        adaptive.encode(two, two, alphabet=3, contexts_count=2)
    with pytest.raises(ValueError, match="contexts of 3"):
        adaptive.decode(b"", two, 3, alphabet=3, contexts_count=3)
    with pytest.raises(ValueError, match="1 to 256"):
        adaptive.encode(two, None, alphabet=257)


@given(st.integers(0, 99), st.integers(0, 3000), st.integers(1, 8))
@settings(deadline=None, max_examples=examples(40))
def test_the_coder_is_a_round_trip(seed, count, width):
    codes = drawn(seed, count, 1 << width, 1).symbols
    reader = Reader(memoryview(ADAPTIVE.encode(codes, width, 9) + b"tail"))
    assert (ADAPTIVE.read(reader, count, width).codes() == codes).all()
    assert reader.left == 4


@pytest.mark.parametrize("count", [300, 50_000])
def test_the_adaptive_coder_is_chosen_where_it_is_smallest(count):
    steep = drawn(3, count, 8, 1).symbols
    assert write_codes(steep, 3, 9)[0] == ADAPTIVE.number
    fair = np.random.default_rng(0).integers(0, 8, count).astype(np.uint8)
    assert write_codes(fair, 3, 9)[0] == 0x31
    periodic = np.resize(np.arange(8, dtype=np.uint8), count)
    assert write_codes(periodic, 3, 9)[0] in (0x32, 0x33)


def test_the_shortest_number_is_chosen():
    # Four slots of 4096: the symbols 1, 2 are [6/16, 7/16) of the unit interval, and 0x60 = 6/16 begins it.
    assert range_coder.encode([4096, 8192], [4096, 4096]) == b"\x60"
    assert range_coder.encode([4096, 8192, 1], [4096, 4096, 1]) == bytes.fromhex("600040")


def test_a_carry_goes_through_many_words():
    # Below a half, then the last slots again and again: ones pile up until a carry clears them.
    starts, frequencies = [8191] + [16383] * 40, [2] + [1] * 40
    body = range_coder.encode(starts, frequencies)
    table = {0: range_coder.slot_table([0, 8191, 8193, 16383], [8191, 2, 8190, 1])}
    decoder = range_coder.RangeDecoder(memoryview(body))
    assert list(decoder.decode(table, None, 41)) == [1] + [3] * 40
    decoder.finish()


def test_the_cargo_of_lanes_comes_back():
    starts = np.zeros(500, np.uint16)
    frequencies = np.full(500, 8192, np.uint16)
    body = rans.encode(starts, frequencies, [(0, 500)], 8, b"fifteen  bytes!")
    decoder = rans.LaneDecoder(memoryview(body), 8)
    out = np.ones(500, np.uint8)
    decoder.decode(np.array([[0, 8192]]), np.array([[8192, 8192]]), None, out)
    assert not out.any()
    assert decoder.finish() == b"fifteen  bytes!\0"
