"""Writes golden frames that do not exist yet; never touches one that does.

Run it after adding a stage or a case: `python tests/compression/make_golden.py`. A frame, once in the
repository, is decoded to the same bits by every later release; so a vector is never rewritten, only added.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from codec_cases import SETTINGS, frame_of, schema_of, training_like

from laconic.compression import decode, inspect
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
from laconic.compression.transforms.random_k import RANDOM_K
from laconic.compression.transforms.sparse import SPARSE
from laconic.compression.transforms.zero import ZERO
from laconic.compression.wire import float32, varint
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
        rice = POSITIONS.stages[2].encode(mask, 9)
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


def products() -> Iterator[tuple[str, Schema, bytes]]:
    """Low rank with every transform that may hold the rest; ranks one to five; magnitudes beyond 2**12."""
    rng = np.random.default_rng(4)
    rows, columns = 30, 40
    schema = schema_of((rows, columns))
    levels = levels_of(rows, columns, 3, 0.02, 5)
    grid = GRID.write(Kept.of(levels), columns, Steps(2.0**-8, 3, (70,)))
    mask: Mask = levels != 0
    sparse = SPARSE.write(mask, FLOAT32.write(levels[mask].astype(np.float32)), 9)
    for name, rank, nested in (("zero", 1, ZERO.write()), ("sparse", 5, sparse), ("grid", 3, grid)):
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


def main() -> int:
    """Write what is missing; say what was written."""
    FOLDER.mkdir(exist_ok=True)
    every = (by_settings(), by_stages(), grids(), products(), pools(), coded(), seeded())
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
