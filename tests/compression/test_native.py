"""Laws of the compiled kernels: the same bytes, the same symbols and the same refusals as plain Python's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS, adaptive, decode, encode, native, range_coder
from laconic.compression.adaptive import MAX_PRIOR, StreamDecoder, SymbolStream, encode_streams
from laconic.compression.frequencies import Model
from laconic.compression.native.streams import encode_lanes, encode_range, native_model
from laconic.compression.transforms.grid import quantise
from laconic.errors import WireError
from laconic.schema import Schema, TensorSpec
from often import examples

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(p.stem for p in FOLDER.glob("*.frame"))
REFUSED = sorted(p.stem for p in (FOLDER / "refused").glob("*.json"))

T = TypeVar("T")


def outcome(work: Callable[[], T], *, natively: bool) -> T | tuple[type[Exception], str]:
    """What work returns, or the error it raises, with or without the kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "ready", lambda symbols, **_: natively)
        try:
            return work()
        except WireError as error:
            return type(error), str(error)


def same(work: Callable[[], T]) -> T | tuple[type[Exception], str]:
    """The outcome of both ways, which is one."""
    plain, compiled = outcome(work, natively=False), outcome(work, natively=True)
    assert compiled == plain
    return plain


def drawn(seed: int, count: int, alphabet: int, contexts_count: int, prior: bool) -> SymbolStream:
    """Symbols steeper from context to context, and steeper or flatter in the second half."""
    rng = np.random.default_rng(seed)
    contexts = rng.integers(0, contexts_count, count).astype(np.uint8)
    p = np.where(np.arange(count) < count // 2, *rng.uniform(0.02, 1, (2, contexts_count))[:, contexts])
    symbols = np.minimum(rng.geometric(p) - 1, alphabet - 1).astype(np.uint8)
    weights = np.exp(rng.uniform(0, np.log(MAX_PRIOR), contexts_count * alphabet)).astype(int)
    return SymbolStream(
        symbols,
        None if contexts_count == 1 else contexts,
        alphabet,
        contexts_count,
        tuple(weights.tolist()) if prior else None,
    )


def streams(longest: int) -> st.SearchStrategy[list[SymbolStream]]:
    return st.lists(
        st.builds(
            drawn,
            st.integers(0, 2**32 - 1),
            st.one_of(st.integers(0, 40), st.integers(0, longest)),
            st.one_of(st.integers(1, 20), st.sampled_from([32, 33, 84, 256])),
            st.one_of(st.just(1), st.integers(1, 9), st.just(256)),
            st.booleans(),
        ),
        max_size=4,
    )


def body_of(of: list[SymbolStream], lanes: int | None) -> bytes:
    """A body in so many lanes, or in as many as the encoder chooses."""
    with pytest.MonkeyPatch.context() as patch:
        if lanes is not None:
            patch.setattr(adaptive, "lanes_for", lambda bits: lanes)
        return encode_streams(of)


def symbols_of(body: bytes, of: list[SymbolStream]) -> list[list[int]]:
    decoder = StreamDecoder(body)
    out = [
        decoder.symbols(
            s.contexts, s.symbols.size, alphabet=s.alphabet, contexts_count=s.contexts_count, prior=s.prior
        ).tolist()
        for s in of
    ]
    decoder.finish()
    return out


lanes_or_none = st.one_of(st.none(), st.sampled_from([2, 4, 16, 64, 1024, 4096]))


@given(streams(5000), lanes_or_none)
@settings(deadline=None, max_examples=examples(150))
def test_both_make_the_same_bytes_of_streams_and_the_same_streams_of_bytes(of, lanes):
    body = same(lambda: body_of(of, lanes))
    assert isinstance(body, bytes)
    assert same(lambda: symbols_of(body, of)) == [s.symbols.tolist() for s in of]


@pytest.mark.parametrize(("alphabet", "contexts_count"), [(1, 1), (2, 3), (16, 1), (16, 12), (256, 256)])
def test_both_agree_on_long_streams_whose_counts_are_halved_often(alphabet, contexts_count):
    of = [drawn(alphabet, 150_000, alphabet, contexts_count, prior=contexts_count == 3)]
    body = same(lambda: body_of(of, None))
    assert isinstance(body, bytes)
    assert same(lambda: symbols_of(body, of)) == [of[0].symbols.tolist()]


@given(streams(900), lanes_or_none, st.data())
@settings(deadline=None, max_examples=examples(300))
def test_both_refuse_a_mutated_body_alike_or_read_the_same_symbols(of, lanes, data):
    body = bytearray(body_of(of, lanes) or b"\x01")
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(body) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "grow"]))
        if kind == "grow":
            body.insert(where, data.draw(st.integers(0, 255)))
        elif kind == "flip":
            body[where] ^= data.draw(st.integers(1, 255))
        elif len(body) > 1:
            del body[where : where + data.draw(st.integers(1, 40))]
        if not body:
            body = bytearray(b"\x02")
    same(lambda: symbols_of(bytes(body), of))


@given(st.binary(max_size=2500), streams(400), st.integers(0, 13), st.integers(0, 127))
@settings(deadline=None, max_examples=examples(300))
def test_both_refuse_any_bytes_alike_or_read_the_same_symbols(body, of, lanes_log2, first):
    if len(body) > adaptive.BARE_BYTES:
        body = bytes([lanes_log2, first]) + body
    same(lambda: symbols_of(body, of))


@pytest.mark.parametrize("seed", range(12))
def test_both_refuse_long_bodies_in_lanes_alike(seed):
    of = [drawn(seed, 9000, 6, 3, prior=False)]
    body = bytearray(body_of(of, 64 if seed % 2 else 256))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(20):
        changed = body.copy()
        changed[int(rng.integers(len(body)))] ^= 1 << int(rng.integers(8))
        cut = bytes(changed[: len(changed) - int(rng.integers(0, 50))])
        found.append(same(lambda cut=cut: symbols_of(cut, of)))
    assert sum(isinstance(f, tuple) for f in found) >= 15


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([0.02, 0.5, 1.3, 4.0]),
    st.sampled_from([0.0, 0.03, 0.09, 0.5]),
)
@settings(deadline=None, max_examples=examples(200))
def test_both_choose_the_same_levels(seed, rows, columns, step, price):
    rng = np.random.default_rng(seed)
    scales = rng.lognormal(0, 1.5, (rows, 1)) * rng.lognormal(0, 1, columns)
    matrix = scales * rng.standard_t(3, (rows, columns)) * (rng.random((rows, 1)) < 0.8)
    # Many alike, and halves of steps: where costs are equal both must take the same.
    tensor = np.where(rng.random(matrix.shape) < 0.2, np.round(2 * matrix) * step / 2, matrix)
    vector = tensor.astype(np.float32).ravel()

    def levels() -> tuple[list[int], list[int], object] | None:
        found = quantise(vector, columns, step, price)
        return found and (found[0].positions.tolist(), found[0].levels.tolist(), found[1])

    same(levels)


@given(st.integers(0, 2**32 - 1), st.integers(0, 400))
@settings(deadline=None)
def test_numbers_are_the_same_where_carries_run_far(seed, count):
    rng = np.random.default_rng(seed)
    # Slots near either end, of small frequencies: ones and zeros pile up until a carry clears them.
    starts = np.where(
        rng.random(count) < 0.9, rng.integers(16380, 16383, count), rng.integers(0, 16000, count)
    )
    frequencies = np.minimum(rng.integers(1, 300, count), 16384 - starts)
    s, f = starts.astype(np.uint16), frequencies.astype(np.uint16)

    assert encode_range(s, f) == range_coder.encode(s.tolist(), f.tolist())


def test_what_kernels_only_read_may_be_read_only():
    stream = drawn(1, 3000, 5, 4, prior=True)
    model = native_model(Model(5, 4, stream.prior), stream.contexts, (4, 2048))
    before = stream.symbols.copy()
    stream.symbols.flags.writeable = False
    starts, frequencies = model.modelled(stream.symbols)
    starts.flags.writeable = frequencies.flags.writeable = False
    encode_range(starts, frequencies)
    encode_lanes(starts, frequencies, [(0, 3000)], np.full(64, 1 << 16, np.uint32))
    assert (stream.symbols == before).all()


@pytest.mark.parametrize("name", NAMES)
def test_golden_frames_decode_to_the_same_bits_natively(name):
    text = json.loads((FOLDER / f"{name}.json").read_text())
    schema = Schema(tuple(TensorSpec(n, tuple(shape)) for n, shape in text["schema"]))
    frame = (FOLDER / f"{name}.frame").read_bytes()
    found = outcome(lambda: decode(frame, schema, limit_bytes=4 * schema.size), natively=True)
    assert isinstance(found, np.ndarray)
    assert found.astype("<f4").tobytes().hex() == text["expected_float32_little_endian_hex"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_must_be_refused_is_refused_alike(name):
    text: dict[str, Any] = json.loads((FOLDER / "refused" / f"{name}.json").read_text())
    schema = Schema(tuple(TensorSpec(n, tuple(shape)) for n, shape in text["schema"]))
    frame = bytes.fromhex(text["frame_hex"])
    refusal = same(lambda: decode(frame, schema, limit_bytes=4 * schema.size).tolist())
    assert isinstance(refusal, tuple)


@pytest.mark.parametrize("preset", ["small", "tiny", "fast", "dense8"])
@pytest.mark.parametrize("seed", range(3))
def test_both_encode_an_update_to_the_same_frame(preset, seed):
    schema = Schema((TensorSpec("w", (120, 90)), TensorSpec("b", (120,)), TensorSpec("v", (30, 120))))
    rng = np.random.default_rng(seed)
    rows, columns = rng.lognormal(0, 1, (120, 1)), rng.lognormal(0, 1, (1, 90))
    matrix = rows * columns * rng.standard_t(3, (120, 90))
    update = np.concatenate([matrix.ravel(), rng.standard_normal(120), rng.standard_t(2, 3600)])
    vector = (update * 1e-3).astype(np.float32)
    same(lambda: encode(vector, schema, PRESETS[preset], np.random.default_rng(0)).frame)
