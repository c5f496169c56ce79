"""Writes golden frames that do not exist yet; never touches one that does.

Run it after adding a stage or a case: `python tests/compression/make_golden.py`. A frame, once in the
repository, is decoded to the same bits by every later release; so a vector is never rewritten, only added.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import test_codec_hostile
import test_codec_more_stages
from codec_cases import SETTINGS, frame_of, schema_of, training_like

from laconic.compression import adaptive, decode, inspect
from laconic.compression.bits import Codes, Mask
from laconic.compression.coders import CODERS
from laconic.compression.factors import IntegerFactors
from laconic.compression.frame import layout, wrap
from laconic.compression.positions import POSITIONS
from laconic.compression.quantisers.float32 import FLOAT32
from laconic.compression.quantisers.ladder import Ladder
from laconic.compression.quantisers.planes import FLOAT_PLANES
from laconic.compression.quantisers.rotated import LEVELS, ROTATED
from laconic.compression.stages import Coder
from laconic.compression.transforms.dense import DENSE
from laconic.compression.transforms.grid import GRID, Kept, Steps
from laconic.compression.transforms.low_rank import LOW_RANK
from laconic.compression.transforms.multiples import MULTIPLES
from laconic.compression.transforms.random_k import RANDOM_K
from laconic.compression.transforms.sparse import SPARSE
from laconic.compression.transforms.zero import ZERO
from laconic.compression.wire import float32, varint
from laconic.errors import WireError
from laconic.schema import Schema

FOLDER = Path(__file__).parent / "golden"
SCHEMA = schema_of((8, 3, 3, 3), (8,), (24, 60), (24,), (), (0, 5), (7,))


def coded_by(coder: Coder, codes: Codes, width: int) -> bytes:
    """A coder's number and its bytes."""
    body = coder.encode(codes, width, 9)
    assert body is not None
    return bytes([coder.number]) + body


def by_settings() -> Iterator[tuple[str, Schema, bytes]]:
    """What the encoder makes of one update under every setting."""
    rng = np.random.default_rng(20)
    update = training_like(SCHEMA, rng)
    for name, settings in SETTINGS.items():
        yield f"encoder-{name}", SCHEMA, frame_of(update, SCHEMA, settings, rng)


def by_stages() -> Iterator[tuple[str, Schema, bytes]]:
    """Every position coder with every coder behind it, whatever the encoder would choose."""
    schema = schema_of((16, 50))
    mask: Mask = np.zeros((16, 50), np.bool_)
    mask[::3, ::5] = True
    mask[15, 49] = True
    mask = mask.ravel()
    kept = int(np.count_nonzero(mask))
    levels = (np.arange(kept) % 11).astype(np.uint8)
    signs = (np.arange(kept) % 3 == 0).astype(np.uint8)
    ladder = Ladder((250, 515, 760, 1030, 1290, 1540, 1800, 2048), 11, 2.0**-12 * 1.1)
    listed = b"".join(m.to_bytes(2, "little") for m in ladder.listed)
    gaps = np.diff(np.flatnonzero(mask), prepend=-1) - 1
    for coder in CODERS:
        values = bytes([0x12]) + float32(ladder.scale) + bytes([ladder.rungs]) + listed
        values += coded_by(coder, signs, 1) + coded_by(coder, levels, 4)
        bitmap = coded_by(coder, mask.view(np.uint8), 1)
        listing = varint(kept) + coded_by(coder, gaps.astype(np.uint8), 8)
        rice = POSITIONS.stages[2].encode(np.flatnonzero(mask), mask.size, 9)
        assert rice is not None
        for position, body in ((0x20, bitmap), (0x21, listing), (0x22, rice)):
            part = b"\x03" + varint(kept) + bytes([position]) + body + values
            yield f"stages-{position:02x}-{coder.number:02x}", schema, wrap(schema, (), [part])


def levels_of(rows: int, columns: int, rungs: int, share: float, seed: int) -> np.ndarray:
    """Levels of a matrix some of whose rows and columns keep far more than others; the signs follow rows."""
    rng = np.random.default_rng(seed)
    likely = np.outer(rng.choice([0.1, 1, 4], rows), rng.choice([0.1, 1, 4], columns)) * share
    signs = np.where(rng.random((rows, columns)) < rng.random((rows, 1)), -1, 1)
    levels = np.minimum(rng.geometric(0.5, (rows, columns)), rungs) * signs
    return (levels * (rng.random((rows, columns)) < likely)).ravel()


def grids() -> Iterator[tuple[str, Schema, bytes]]:
    """Classes of rows and columns or none, one level or all 255, signs as bits, as one class and as many."""
    wide = np.zeros(3000, np.int64)
    wide[[0, 1, 700, 2999]] = 1, -1, 3, -2
    alike = np.zeros(900, np.int64)
    alike[::11] = -1
    every = np.zeros(40 * 30, np.int64)
    every[3::4] = np.arange(300) % 255 + 1
    every[7::8] *= -1
    full = np.where(np.arange(60) % 3 == 0, -1, 1)
    few = np.zeros((90, 80), np.int64)
    few[2::9, 1::7] = 1 + np.arange(120).reshape(10, 12) % 5 // 4
    rng = np.random.default_rng(8)
    noise = rng.integers(-255, 255, 9000, endpoint=True) * (rng.random(9000) < 0.6)
    cases = {
        "one-row": (wide, 3000, Steps(2.0**-9, 3, (70, 60, 50))),
        "one-value": (np.eye(1, 24, 23, dtype=np.int64)[0], 24, Steps(2.0**-126, 1, ())),
        "signs-alike": (alike, 30, Steps(2.0**-10 * 1.5, 1, (255,))),
        "all-rungs": (every, 30, Steps(2.0**-4, 255, (0, 255, 1, 65))),
        "every-value": (full, 10, Steps(2.0, 1, ())),
        "classes": (levels_of(60, 50, 6, 0.15, 1), 50, Steps(2.0**-12, 6, (64, 80))),
        "few-rows-and-columns": (few.ravel(), 80, Steps(2.0**-12, 2, (90,))),
        "long-number": (levels_of(60, 60, 20, 0.5, 3), 60, Steps(2.0**-12, 20, (60, 61, 62, 63))),
        "lanes": (noise, 90, Steps(2.0**-12, 255, (60, 61, 62, 63))),
    }
    for name, (levels, columns, steps) in cases.items():
        schema = schema_of((levels.size // columns, columns))
        part = GRID.write(Kept.of(levels), columns, steps)
        assert part is not None
        yield f"grid-{name}", schema, wrap(schema, (), [part])


def every_value() -> Iterator[tuple[str, Schema, bytes]]:
    """Multiples: classes or none, low bits or none, signs as bits, as one class and as many."""
    rng = np.random.default_rng(11)
    spread = np.outer(2.0 ** rng.uniform(-3, 5, 50), 2.0 ** rng.uniform(-2, 2, 40))
    heavy = np.rint(spread * rng.laplace(size=(50, 40))).astype(np.int64)
    largest = np.zeros(30, np.int64)
    largest[[0, 7, 29]] = 98303, -98303, 1
    alike = -rng.integers(0, 3, 600)
    by_row = np.where(rng.random((40, 25)) < rng.choice([0.02, 0.5, 0.98], (40, 1)), -1, 1)
    cases = {
        "classes": (heavy.ravel(), 40, Steps(2.0**-12, 1, (50, 70, 60, 64))),
        "largest": (largest, 30, Steps(2.0**-20 * 1.5, 1, ())),
        "signs-alike": (alike, 20, Steps(2.0**-9, 1, (80,))),
        "signs-of-rows": ((by_row * rng.integers(0, 12, (40, 25))).ravel(), 25, Steps(2.0**-9, 1, (255, 0))),
    }
    for name, (levels, columns, steps) in cases.items():
        schema = schema_of((levels.size // columns, columns))
        part = MULTIPLES.write(levels, columns, steps)
        assert part is not None
        yield f"multiples-{name}", schema, wrap(schema, (), [part])


def products() -> Iterator[tuple[str, Schema, bytes]]:
    """Low rank with every transform that may hold the rest; ranks one to five; magnitudes beyond 2**12."""
    rng = np.random.default_rng(4)
    rows, columns = 30, 40
    schema = schema_of((rows, columns))
    levels = levels_of(rows, columns, 3, 0.02, 5)
    grid = GRID.write(Kept.of(levels), columns, Steps(2.0**-8, 3, (70,)))
    positions = np.flatnonzero(levels)
    sparse = SPARSE.write(positions, levels.size, FLOAT32.write(levels[positions].astype(np.float32)), 9)
    full = rng.integers(-3, 3, rows * columns, endpoint=True)
    multiples = MULTIPLES.write(full, columns, Steps(2.0**-8, 3, (70,)))
    nested_parts = (
        ("zero", 1, ZERO.write()),
        ("sparse", 5, sparse),
        ("grid", 3, grid),
        ("multiples", 2, multiples),
    )
    for name, rank, nested in nested_parts:
        assert nested is not None
        sizes = [6000, 40, 11, 3, 1][:rank]
        left, right = (
            np.stack([rng.integers(-m, m, n, endpoint=True) for m in most], 1) * (rng.random((n, 1)) < 0.8)
            for n, most in ((rows, sizes), (columns, [12] * rank))
        )
        codes = tuple([0, 3, 18, 33, 40][:rank])
        factors = IntegerFactors(left.astype(np.int32), right.astype(np.int32), codes, 2.0**-20 * 1.3)
        part = LOW_RANK.write(factors, nested)
        assert part is not None
        yield f"low-rank-{name}", schema, wrap(schema, (), [part])


def pools() -> Iterator[tuple[str, Schema, bytes]]:
    """None, some and all of the tensors in the pool; more than eight of them; an empty one among them."""
    sizes = (5, 3, 0, 7, 4, 1, 9, 2, 6, 8)
    schema = schema_of(*((n,) for n in sizes))
    for name, pool in (
        ("none", ()),
        ("some", (1, 2, 5, 9)),
        ("one", (3,)),
        ("all", range(len(sizes))),
    ):
        parts = []
        for i, tensors in enumerate(layout(len(sizes), pool)):
            values = sum(sizes[t] for t in tensors)
            exact = DENSE.write(FLOAT32.write(np.arange(1, values + 1, dtype=np.float32) + i / 8))
            parts.append(exact if values else ZERO.write())
        yield f"pool-{name}", schema, wrap(schema, pool, parts)
    levels = np.where(np.arange(45) % 4 == 1, np.arange(45) % 5 - 2, 0)
    part = GRID.write(Kept.of(levels), 45, Steps(0.5, 2, ()))
    assert part is not None
    few = SPARSE.write(np.array([0, 8, 44]), 45, FLOAT32.write(np.array([1, -2, 0.5], np.float32)), 9)
    yield "pool-sparse", schema, wrap(schema, range(len(sizes)), [few])
    yield "pool-grid", schema, wrap(schema, range(len(sizes)), [part])


def coded() -> Iterator[tuple[str, Schema, bytes]]:
    """Coder 34 beyond 512 bytes: a long number, and lanes; no byte at all; counts that are halved."""
    rng = np.random.default_rng(6)
    cases = {
        "no-byte": (np.zeros(5, np.uint8), 8),
        "number": (rng.integers(0, 255, 900).astype(np.uint8), 8),
        "halved": (np.minimum(rng.geometric(0.3, 5000) - 1, 3).astype(np.uint8), 2),
        "lanes": (rng.integers(0, 255, 6500).astype(np.uint8), 8),
    }
    for name, (codes, width) in cases.items():
        schema = schema_of((codes.size,))
        stream = coded_by(CODERS.by_number[0x34], codes % (2**width - 1), width)
        uniform = bytes([0x11, width]) + float32(2.0**-9 * 1.7) + stream
        yield f"adaptive-{name}", schema, wrap(schema, (), [DENSE.write(uniform)])


def seeded() -> Iterator[tuple[str, Schema, bytes]]:
    """Random-k of one, some and all values; rotated codes of each width, once and twice; float32's ends."""
    rng = np.random.default_rng(7)
    for values, kept in ((1, 1), (37, 9), (1000, 64), (256, 256)):
        schema = schema_of((values,))
        quantised = FLOAT32.write(rng.standard_normal(kept).astype(np.float32))
        part = RANDOM_K.write(kept, int(rng.integers(1 << 63)) * 2 + 1, quantised)
        yield f"random-k-{kept}-of-{values}", schema, wrap(schema, (), [part])
    for bits in LEVELS:
        for unbiased in (False, True):
            schema = schema_of((61 * bits + 200 * unbiased,))
            normal = rng.standard_normal(schema.size).astype(np.float32)
            part = DENSE.write(ROTATED.write(normal, bits, 9, int(rng.integers(1 << 63)), unbiased=unbiased))
            yield f"rotated-{bits}-{'twice' if unbiased else 'once'}", schema, wrap(schema, (), [part])
    limits = np.array([0.0, -0.0, 1e-45, -1e-45, 2.0**-126, 3.4028235e38, -3.4028235e38, 1.0], np.float32)
    schema = schema_of((8,))
    for name, quantised in (("float32", FLOAT32.write(limits)), ("planes", FLOAT_PLANES.write(limits, 9))):
        yield f"limits-{name}", schema, wrap(schema, (), [DENSE.write(quantised)])


def refused() -> Iterator[tuple[str, Schema, bytes]]:
    """Frames that are wrong in one way each."""
    for values, cases in ((800, test_codec_hostile.sections()), (100, test_codec_more_stages.bad_sections())):
        schema = schema_of((values,))
        for name, (part, _) in cases.items():
            yield f"{values} values, {name}", schema, wrap(schema, (), [part])
    yield from wrong_grids()
    yield from wrong_multiples()
    yield from wrong_products()
    yield from wrong_bodies()
    yield from wrong_envelopes()


def wrong_grids() -> Iterator[tuple[str, Schema, bytes]]:
    """A byte or two of a good grid changed, or of its header with classes; good: 1/128, 3 kept of 24."""
    schema = schema_of((4, 6))
    good = bytes.fromhex("04 40 00 3c 02 03 02 3e 54 00 82 00")
    assert decode(wrap(schema, (), [good]), schema, limit_bytes=96).any()
    edits = {
        "sign classes of no kind": (1, "46"),
        "more offsets than rungs": (1, "58"),
        "a scale of zero": (2, "0000"),
        "a scale that is infinite": (2, "807f"),
        "a scale whose highest magnitude is": (2, "7f7f"),
        "no rungs": (4, "00"),
        "one rung that is said": (4, "01"),
        "nothing kept": (5, "00"),
        "more kept than values": (5, "19"),
        "another body": (7, "3e55"),
        "low bits too many": (9, "01"),
        "padding of the low bits": (10, "8202"),
        "a cell beyond the block": (10, "bf00"),
    }
    for name, (at, new) in edits.items():
        part = good[:at] + bytes.fromhex(new) + good[at + len(new) // 2 :]
        yield f"grid, {name}", schema, wrap(schema, (), [part])
    for name, head in {
        "columns that do not divide": "04 c0 01 05 00 3c 02 03 00",
        "more columns than values": "04 c0 01 19 00 3c 02 03 00",
        "a flag without classes": "04 c0 40 06 00 3c 02 03",
        "one class that is said": "04 c0 00 06 00 3c 02 03",
        "an empty first class that no flag says": "04 c0 01 06 00 3c 02 00 03",
    }.items():
        yield f"grid, {name}", schema, wrap(schema, (), [bytes.fromhex(head) + good[6:]])
    yield "grid, cut short", schema, wrap(schema, (), [good[:-1]])
    long = schema_of((1, 1 << 20))
    part = b"\x04\x01\x00\x3c" + varint(1 << 19) + b"\x00\x00"
    yield "grid, few bytes for many symbols", long, wrap(long, (), [part])


def wrong_multiples() -> Iterator[tuple[str, Schema, bytes]]:
    """One byte or two of good multiples changed; good: 6 columns, scale 1/128, levels -2 to 9."""
    schema = schema_of((4, 6))
    good = MULTIPLES.write(np.arange(24) % 12 - 2, 6, Steps(2.0**-7, 1, (66,)))
    assert good is not None
    assert good[:8] == bytes.fromhex("07 06 20 10 09 00 3c 42")
    assert decode(wrap(schema, (), [good]), schema, limit_bytes=96).any()
    edits = {
        "columns that do not divide": (1, "05"),
        "more columns than values": (1, "19"),
        "more offsets than there can be": (3, "50"),
        "one token": (4, "01"),
        "too many tokens": (4, "24"),
        "a scale of zero": (5, "0000"),
        "a scale that is infinite": (5, "807f"),
        "a scale whose largest value is": (5, "7f7f"),
        "no symbols": (8, "00"),
    }
    for name, (at, new) in edits.items():
        part = good[:at] + bytes.fromhex(new) + good[at + len(new) // 2 :]
        yield f"multiples, {name}", schema, wrap(schema, (), [part])
    yield "multiples, cut short", schema, wrap(schema, (), [good[:-1]])
    low = 9 + good[8]
    longer = good[:low] + bytes([good[low] + 1]) + good[low + 1 :] + b"\0"
    yield "multiples, low bits too many", schema, wrap(schema, (), [longer])
    long = schema_of((1, 1 << 20))
    part = b"\x07\x00\x00\x00\x02\x00\x3c\x00\x00"
    yield "multiples, few bytes for many symbols", long, wrap(long, (), [part])


def wrong_products() -> Iterator[tuple[str, Schema, bytes]]:
    """Sizes, scales, multipliers and sums of a low rank part."""
    schema = schema_of((3, 4))
    left, right = np.array([[1], [0], [-2]], np.int32), np.array([[3], [0], [1], [2]], np.int32)

    def part(code: int = 0, scale: float = 1.0, nested: bytes = b"\x01", most: int = 1) -> bytes:
        written = LOW_RANK.write(IntegerFactors(left * most, right, (code,), scale), nested)
        assert written is not None
        return written

    good = part()
    assert decode(wrap(schema, (), [good]), schema, limit_bytes=48).any()
    overflow = SPARSE.write(np.array([0]), 12, FLOAT32.write(np.array([3.4e38], np.float32)), 9)
    cases = {
        "columns that do not divide": good[:1] + b"\x05" + good[2:],
        "no columns": good[:1] + b"\x00" + good[2:],
        "no rank": good[:2] + b"\x00" + good[3:],
        "a rank of two": good[:2] + b"\x02" + good[3:],
        "a scale too small": part(scale=2.0**-103),
        "an infinite scale": part(scale=float("inf")),
        "products that are infinite": part(scale=2.0**125),
        "a multiplier too large": good[:7] + b"\x40" + good[8:],
        "sums beyond 24 bits": part(code=63, scale=2.0**-60, most=100),
        "no alphabet": good[:8] + b"\x00" + good[9:],
        "too large an alphabet": good[:8] + b"\x24" + good[9:],
        "dense for the rest": part(nested=DENSE.write(FLOAT32.write(np.ones(12, np.float32)))),
        "low rank for the rest": part(nested=good),
        "a sum that is infinite": part(scale=2.0**122, nested=overflow),
    }
    for name, bad in cases.items():
        yield f"low rank, {name}", schema, wrap(schema, (), [bad])


def wrong_bodies() -> Iterator[tuple[str, Schema, bytes]]:
    """Adaptive bodies that no encoder makes."""
    schema = schema_of((2000,))
    codes = np.random.default_rng(9).integers(0, 255, 2000).astype(np.uint8)
    number = adaptive.encode(codes, None, alphabet=256)
    lanes_schema = schema_of((8000,))
    lanes = adaptive.encode(np.resize(codes, 8000), None, alphabet=256)
    assert len(number) > 512
    assert number[0] == 0 < lanes[0]

    def framed(of: Schema, body: bytes) -> bytes:
        uniform = bytes([0x11, 8]) + float32(1.0) + b"\x34" + varint(len(body)) + body
        return wrap(of, (), [DENSE.write(uniform)])

    for name, body in {
        "a zero at the end": number + b"\0",
        "one byte more": number + b"\1",
        "no byte for the lanes": b"\0" + number[1:513],
        "lanes of 2**13": b"\x0d" + number[1:],
    }.items():
        yield f"adaptive, {name}", schema, framed(schema, body)
    few = schema_of((300,))
    yield "adaptive, a slot beyond the last", few, framed(few, b"\xff" * 40)
    for name, body in {
        "words cut short": lanes[:-2],
        "half a word": lanes[:-1],
        "a word more": lanes + b"\1\0",
        "other words": lanes[:-9] + b"\0\0" + lanes[-7:],
        "more symbols in lanes than there are": lanes[:1] + varint(8001) + lanes[3:],
    }.items():
        yield f"adaptive, {name}", lanes_schema, framed(lanes_schema, body)
    long = schema_of(((1 << 17) + 64 * 12 + 1,))
    yield "adaptive, few bytes for many codes", long, framed(long, b"\1" * 12)


def wrong_envelopes() -> Iterator[tuple[str, Schema, bytes]]:
    """What stands around the sections."""
    schema = schema_of((2,), (3,), (4,))
    good = wrap(schema, (0, 2), [ZERO.write()] * 2)
    cases = {
        "another magic": b"LUG" + good[3:-4],
        "version 0": good[:3] + b"\0" + good[4:-4],
        "version 3": good[:3] + b"\3" + good[4:-4],
        "a flag": good[:4] + b"\1" + good[5:-4],
        "another schema": good[:5] + bytes(8) + good[13:-4],
        "another number of tensors": good[:13] + b"\2" + good[14:-4],
        "a number that is not in its shortest form": good[:13] + b"\x83\0" + good[14:-4],
        "a tensor too many in the pool": good[:14] + b"\x0d" + good[15:-4],
        "a section missing": good[:14] + b"\1" + good[15:-4],
        "a section too many": good[:14] + b"\7" + good[15:-4],
        "another number of values": good[:15] + b"\5" + good[16:-4],
        "a byte after the last section": good[:-4] + b"\0",
        "nothing after the pool": good[:15],
    }
    for name, body in cases.items():
        yield f"frame, {name}", schema, body + zlib.crc32(body).to_bytes(4, "little")
    yield "frame, another checksum", schema, good[:-1] + bytes([good[-1] ^ 1])
    yield "frame, too short", schema, good[:17]


def write_refused() -> None:
    """Write the refused frames that are missing, with the kind of refusal."""
    folder = FOLDER / "refused"
    folder.mkdir(exist_ok=True)
    for name, schema, frame in refused():
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json"
        if path.exists():
            continue
        try:
            decode(frame, schema, limit_bytes=4 * schema.size)
        except WireError as error:
            text = {
                "schema": [[t.name, list(t.shape)] for t in schema.tensors],
                "frame_hex": frame.hex(),
                "error": type(error).__name__,
            }
            path.write_text(json.dumps(text, indent=1) + "\n")
            print(f"wrote {name}: {error}")
        else:
            raise AssertionError(f"{name} is not refused")


def main() -> int:
    """Write what is missing; say what was written."""
    FOLDER.mkdir(exist_ok=True)
    every = (by_settings(), by_stages(), grids(), every_value(), products(), pools(), coded(), seeded())
    for name, schema, frame in chain.from_iterable(every):
        binary, description = FOLDER / f"{name}.frame", FOLDER / f"{name}.json"
        if binary.exists() or description.exists():
            continue
        expected = decode(frame, schema, limit_bytes=4 * schema.size)
        text = {
            "schema": [[t.name, list(t.shape)] for t in schema.tensors],
            "schema_digest_hex": schema.digest.hex(),
            "stages": [list(t.stages) for t in inspect(frame).sections],
            "expected_float32_little_endian_hex": expected.astype("<f4").tobytes().hex(),
        }
        binary.write_bytes(frame)
        description.write_text(json.dumps(text, indent=1) + "\n")
        print(f"wrote {name}: {len(frame)} bytes")
    write_refused()
    return 0


if __name__ == "__main__":
    sys.exit(main())
