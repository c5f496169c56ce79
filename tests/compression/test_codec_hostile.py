"""Hostile frames: typed errors only, bounded memory, whatever the bytes are."""

from __future__ import annotations

import contextlib
import gc
import json
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard
from codec_cases import LIMIT_BYTES, frame_of, resealed, schema_of, training_like

from laconic.compression import PRESETS, CodecSettings, decode, entropies, inspect
from laconic.compression.coders import CODERS
from laconic.compression.coders.zstd import inflate
from laconic.compression.frame import MAGIC, wrap
from laconic.compression.wire import float32, varint
from laconic.errors import (
    ChecksumMismatch,
    LimitExceeded,
    Malformed,
    NonFinite,
    UnsupportedVersion,
    WireError,
)
from laconic.schema import Schema, TensorSpec

FOLDER = Path(__file__).parent / "golden"
SCRATCH_BYTES = 2 << 20
PREFIX = len(MAGIC) + 2 + 8 + 1


def golden() -> list[tuple[bytes, Schema]]:
    out = []
    for path in sorted(FOLDER.glob("*.frame")):
        shapes = json.loads(path.with_suffix(".json").read_text())["schema"]
        out.append((path.read_bytes(), Schema(tuple(TensorSpec(n, tuple(s)) for n, s in shapes))))
    return out


def mutated(frame: bytes, rng: np.random.Generator) -> bytes:
    """One to four edits: another byte, a flipped bit, a cut, a repetition, an insertion, a loud number."""
    data = bytearray(frame)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data))) if data else 0
        edit = rng.integers(6)
        if not data:
            break
        if edit == 0:
            data[at] = int(rng.integers(256))
        elif edit == 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif edit == 2:
            del data[at : at + int(rng.integers(1, 9))]
        elif edit == 3:
            data[at:at] = data[at : at + int(rng.integers(1, 30))]
        elif edit == 4:
            data[at:at] = rng.bytes(int(rng.integers(1, 5)))
        else:
            loud = [b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\x1f", b"\x00\x00\x80\x7f", b"\0\0\0\0"]
            new = loud[int(rng.integers(4))]
            data[at : at + len(new)] = new
    return bytes(data)


@pytest.mark.parametrize("seal", [False, True], ids=["checksum-broken", "checksum-fixed"])
def test_mutated_frames_raise_wire_errors_only_and_stay_in_memory(seal):
    rng, cases = np.random.default_rng(9), golden()
    gc.collect()
    tracemalloc.start()
    before, refused = tracemalloc.get_traced_memory()[0], 0
    tries = 1600 if seal else 400
    for i in range(tries):
        frame, schema = cases[i % len(cases)]
        # Half of the edits go behind the header, which would refuse most of them.
        cut = PREFIX if i % 2 else 0
        bad = frame[:cut] + mutated(frame[cut:-4], rng) + frame[-4:]
        bad = resealed(bad) if seal else bad
        for use in (lambda: decode(bad, schema, limit_bytes=LIMIT_BYTES), lambda: inspect(bad)):  # noqa: B023
            try:
                out = use()
            except WireError:
                refused += 1
            else:
                assert not isinstance(out, np.ndarray) or np.isfinite(out).all()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < 2 * 4 * max(schema.size for _, schema in cases) + SCRATCH_BYTES
    # With a checksum that fits, a changed value is just another update.
    assert refused > tries * (0.5 if seal else 1.9)


@pytest.mark.parametrize("count", [0, 1, 5, 18, 60])
def test_random_bytes_are_refused(count):
    rng = np.random.default_rng(count)
    for _ in range(100):
        for head in (b"", MAGIC, MAGIC + b"\1\0"):
            with pytest.raises(WireError):
                decode(head + rng.bytes(count), schema_of((10,)), limit_bytes=100)


def sections() -> dict[str, tuple[bytes, type[WireError]]]:
    """Sections for a tensor of 800 values, each wrong in one way."""
    positions = b"\x20\x31" + bytes([0xFF]) + bytes(99)
    one_rung = b"\x12" + float32(1.0) + b"\x01" + b"\x00\x01" + b"\x31\x00"
    exact = b"\x10" + np.ones(8, "<f4").tobytes()
    nan = np.full(800, np.nan, "<f4").tobytes()
    return {
        "unknown transform": (b"\x0f", UnsupportedVersion),
        "unknown quantiser": (b"\x02\x13", UnsupportedVersion),
        "unknown position coder": (b"\x03\x08\x23", UnsupportedVersion),
        "unknown coder": (b"\x02\x11\x08" + float32(1.0) + b"\x35", UnsupportedVersion),
        "NaN value": (b"\x02\x10" + nan, NonFinite),
        "infinite scale": (b"\x02\x11\x08" + float32(np.inf) + b"\x30" + bytes(800), NonFinite),
        "NaN scale": (b"\x02\x11\x08" + float32(np.nan) + b"\x30" + bytes(800), NonFinite),
        "negative scale": (b"\x02\x11\x08" + float32(-1.0) + b"\x30" + bytes(800), Malformed),
        "zero scale": (b"\x02\x11\x08" + float32(0.0) + b"\x30" + bytes(800), Malformed),
        "subnormal scale": (b"\x02\x11\x08" + float32(1e-40) + b"\x30" + bytes(800), Malformed),
        "scale that overflows": (b"\x02\x11\x08" + float32(3e38) + b"\x30" + bytes(800), NonFinite),
        "no bits": (b"\x02\x11\x00" + float32(1.0) + b"\x30" + bytes(800), Malformed),
        "nine bits": (b"\x02\x11\x09" + float32(1.0) + b"\x30" + bytes(800), Malformed),
        "code beyond the top": (b"\x02\x11\x08" + float32(1.0) + b"\x30" + b"\xff" * 800, Malformed),
        "code wider than its bits": (b"\x02\x11\x03" + float32(1.0) + b"\x30" + b"\x08" * 800, Malformed),
        "no kept values": (b"\x03\x00" + positions + exact, Malformed),
        "more kept than values": (b"\x03" + varint(801) + positions + exact, Malformed),
        "fewer bits set than kept": (b"\x03\x07" + positions + one_rung, Malformed),
        "no rungs": (b"\x03\x08" + positions + b"\x12" + float32(1.0) + b"\x00", Malformed),
        "rung of zero": (b"\x03\x08" + positions + b"\x12" + float32(1.0) + b"\x01\0\0\x31\0", Malformed),
        "rungs that fall": (b"\x03\x08" + positions + b"\x12" + float32(1.0) + b"\x02\2\0\1\0", Malformed),
        "rung beyond the ladder": (
            b"\x03\x08" + positions + b"\x12" + float32(1.0) + b"\x03\1\0\2\0\3\0\x31\0\x31\xff\xff",
            Malformed,
        ),
        "ladder that overflows": (
            b"\x03\x08" + positions + b"\x12" + float32(3e38) + b"\x01\2\0\x31\0",
            NonFinite,
        ),
        "gaps of too many": (b"\x03" + varint(101) + b"\x21" + varint(101) + b"\x30" + bytes(101), Malformed),
        "fewer gap bytes than gaps": (b"\x03\x08\x21\x07\x30" + bytes(7) + exact, Malformed),
        "gaps that end in an escape": (b"\x03\x08\x21\x09\x30" + bytes(8) + b"\xff" + exact, Malformed),
        "gaps beyond the tensor": (b"\x03\x08\x21\x08\x30" + b"\xfe" * 8 + exact, Malformed),
        "Rice shift of nine": (b"\x03\x08\x22\x09", Malformed),
        "Rice without ends": (b"\x03\x08\x22\x00\x08\x00" + exact, Malformed),
        "Rice beyond the tensor": (b"\x03\x08\x22\x08\x08\xff" + b"\xff" * 8 + exact, Malformed),
        "dense that stops": (b"\x02\x10" + bytes(799), Malformed),
        "a tail": (b"\x01\x00", Malformed),
        "zstd that is none": (b"\x02\x11\x08" + float32(1.0) + b"\x32\x04\1\2\3\4", Malformed),
        "empty zstd": (b"\x02\x11\x08" + float32(1.0) + b"\x32\x00", Malformed),
    }


@pytest.mark.parametrize("name", sections())
def test_a_section_wrong_in_one_way_is_refused(name):
    section, error = sections()[name]
    schema = schema_of((800,))
    with pytest.raises(error):
        decode(wrap(schema, (), [section]), schema, limit_bytes=LIMIT_BYTES)


def test_a_frame_says_what_is_wrong_with_it():
    schema = schema_of((800,))
    frame = frame_of(np.ones(800, np.float32), schema, PRESETS["small"], np.random.default_rng(0))
    for bad, error in (
        (b"XUF" + frame[3:], Malformed),
        (frame[:3] + b"\x00" + frame[4:], UnsupportedVersion),
        (frame[:3] + b"\x03" + frame[4:], UnsupportedVersion),
        (frame[:4] + b"\x01" + frame[5:], UnsupportedVersion),
        (frame[:-1] + bytes([frame[-1] ^ 1]), ChecksumMismatch),
        (frame[:6] + b"\0" + frame[7:], ChecksumMismatch),
        (resealed(frame[:6] + b"\0" + frame[7:]), Malformed),
        (frame[:10], Malformed),
    ):
        with pytest.raises(error):
            decode(bad, schema, limit_bytes=LIMIT_BYTES)


def test_a_bomb_is_refused_before_it_is_inflated():
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(256 << 20))[4:]
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(900))[4:]
    # Declares 800 bytes in one segment, then repeats one byte 100,000 times.
    lying = b"\x60" + (800 - 256).to_bytes(2, "little") + (100_000 << 3 | 0b011).to_bytes(3, "little") + b"\0"
    # A window of 2 GiB.
    wide = (
        b"\x40" + bytes([21 << 3]) + (800 - 256).to_bytes(2, "little") + (800 << 3 | 3).to_bytes(3, "little")
    )
    tail = zstandard.ZstdCompressor().compress(bytes(800))[4:] + b"\0"
    twice = tail[:-1] + zstandard.ZstdCompressor().compress(b"")
    cut = zstandard.ZstdCompressor().compress(bytes(800))[4:-1]
    assert len(inflate(memoryview(tail[:-1]), 800)) == 800
    tracemalloc.start()
    for body in (bomb, unsized, lying, wide + b"\0", tail, twice, cut, b""):
        with pytest.raises((Malformed, LimitExceeded)):
            inflate(memoryview(body), 800)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SCRATCH_BYTES


def test_a_section_cannot_ask_for_more_than_its_tensor():
    schema = schema_of((800,))
    huge = varint((1 << 40) - 1)
    frame = wrap(schema, (), [b"\x01"])
    bad = resealed(frame[:PREFIX] + b"\0" + huge + b"\x03" + huge + b"\x20\x30" + bytes(4))
    for use in (lambda: decode(bad, schema, limit_bytes=LIMIT_BYTES), lambda: inspect(bad)):
        with pytest.raises(Malformed):
            use()


@pytest.mark.parametrize(
    ("chosen", "stage"),
    [
        (PRESETS["lossless"], "planes"),
        (PRESETS["exact"], "float32"),
        (replace(PRESETS["small"], step_rms=0.5), "low rank"),
        (replace(PRESETS["small"], step_rms=0.01), "multiples"),
        (replace(PRESETS["small"], step_rms=0.1, low_rank=False), "multiples"),
        (replace(PRESETS["small"], step_rms=0.5, low_rank=False), "grid"),
        (replace(PRESETS["small"], step_rms=4.0, low_rank=False), "grid"),
        (CodecSettings(kind="topk", density=0.02, bits=4, zstd_level=1), "gaps"),
        (CodecSettings(kind="topk", density=0.3, bits=4, zstd_level=1), "bitmap"),
    ],
)
def test_scratch_memory_stays_below_the_dense_size(chosen, stage):
    schema = schema_of((1000, 600), (600,))
    update = training_like(schema, np.random.default_rng(1))
    frame = frame_of(update, schema, chosen, np.random.default_rng(0))
    assert stage in inspect(frame).sections[0].stages
    assert peak_of_decoding(frame, schema) <= 2 * 4 * schema.size + SCRATCH_BYTES


@pytest.mark.parametrize("number", [0x20, 0x21, 0x22])
def test_scratch_memory_stays_below_the_dense_size_for_the_most_positions(number):
    """As many listed positions as are allowed: what a hostile sender would choose."""
    values, kept = 1_000_000, 125_000
    schema = schema_of((values,))
    body = {
        0x20: b"\x20\x31" + b"\x01" * (values // 8),
        0x21: b"\x21" + varint(kept) + b"\x30" + b"\x07" * kept,
        0x22: b"\x22\x00" + varint(values) + b"\x80" * (values // 8),
    }[number]
    quantised = b"\x12" + float32(1.0) + b"\xff" + b"".join((i + 1).to_bytes(2, "little") for i in range(8))
    quantised += b"\x30" + b"\x01" * kept + b"\x30" + b"\xfe" * kept
    frame = wrap(schema, (), [b"\x03" + varint(kept) + body + quantised])
    assert peak_of_decoding(frame, schema) <= 2 * 4 * values + SCRATCH_BYTES
    decoded = decode(frame, schema, limit_bytes=4 * values)
    assert np.count_nonzero(decoded) == kept
    assert decoded.min() == -(8 + 247 * 256)


def peak_of_decoding(frame: bytes, schema: Schema) -> int:
    """Bytes that `decode` had allocated at its peak, the result included."""
    gc.collect()
    tracemalloc.start()
    decode(frame, schema, limit_bytes=4 * schema.size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


LARGE = 1 << 21


def squeezed(count: int, width: int, code: int = 0) -> bytes:
    """A code stream of equal codes: a few hundred bytes for millions."""
    coder = CODERS.by_number[0x33 if width < 8 else 0x32]
    body = coder.encode(np.full(count, code, np.uint8), width, 1)
    assert body is not None
    return bytes([coder.number]) + body


def short_and_slow() -> dict[str, bytes]:
    """For every stage what costs a decoder the most time for each byte, in a tensor of `LARGE` values."""
    one_rung = b"\x12" + float32(1.0) + b"\x01\x01\x00"
    ladder = b"\x12" + float32(1.0) + b"\xff" + b"".join((i + 1).to_bytes(2, "little") for i in range(8))
    ladder += squeezed(LARGE, 1) + squeezed(LARGE, 8)
    listed = LARGE // 8
    short_ladder = one_rung + squeezed(listed, 1)
    rows_less = varint((1 << 17) - 2048)
    factors = varint(1024) + b"\x20" + float32(1.0) + bytes(32) + b"\x23"

    def turned(bits: int, log2: int, rounds: int) -> bytes:
        head = b"\x02\x14" + bytes([bits, log2, rounds]) + bytes(8)
        return head + float32(1.0) * (LARGE >> log2) + squeezed(LARGE, bits)

    return {
        "uniform": b"\x02\x11\x01" + float32(1.0) + squeezed(LARGE, 1),
        "planes": b"\x02\x15" + squeezed(LARGE, 8) * 4,
        "rotated once": turned(4, 14, 1),
        "rotated twice": turned(1, 11, 2),
        "random-k": b"\x06" + varint(LARGE) + bytes(8) + one_rung + squeezed(LARGE, 1),
        "bitmap": b"\x03" + varint(LARGE) + b"\x20" + squeezed(LARGE, 1, 1) + ladder,
        "gaps": b"\x03" + varint(listed) + b"\x21" + varint(listed) + squeezed(listed, 8) + short_ladder,
        "adaptive": b"\x03\x01\x20\x34\x00\x10" + bytes(4),
        # Two classes of 2048 rows: of a single block it would be known that it has low bits.
        "grid": b"\x04\xc1\x41\x80\x08\x00\x3f\xff" + rows_less + b"\x02\xff\xff\x00",
        "grid of zeros": b"\x04\xc1\x01\x80\x08\x00\x3f\xff" + rows_less + b"\x00\x00\x00",
        "low rank": b"\x05" + factors + b"\x00\x01",
    }  # fmt: skip


@pytest.mark.parametrize("name", short_and_slow())
def test_a_short_frame_never_costs_seconds(name):
    """Measured: 0.06 s or less, for 2 million values."""
    schema = schema_of((2048, 1024))
    frame = wrap(schema, (), [short_and_slow()[name]])
    assert len(frame) < 6000
    started = time.process_time()
    with contextlib.suppress(WireError):
        decode(frame, schema, limit_bytes=4 * LARGE)
    assert time.process_time() - started < 1
    with contextlib.suppress(WireError):
        entropies(frame, limit_bytes=4 * LARGE)
    assert time.process_time() - started < 3


def test_many_short_sections_cost_no_more_than_their_tensors():
    """Each may have 131,072 symbols in no bytes, if the schema has a tensor of so many values."""
    schema = schema_of(*[(1, 1 << 17)] * 8)
    grid = b"\x04\x41\x00\x3f\xff" + varint(1 << 16) + b"\x00\x00"
    uniform = b"\x02\x11\x08" + float32(1.0) + b"\x34\x00"
    started = time.process_time()
    multiples = b"\x07\x00\x00\x00\x23\x00\x3f\x00\x00"
    decode(wrap(schema, (), [grid, uniform, multiples, multiples] * 2), schema, limit_bytes=1 << 22)
    # Measured: 0.35 s.
    assert time.process_time() - started < 4
