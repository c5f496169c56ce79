"""Writes golden frames that do not exist yet; never touches one that does.

Run it after adding a stage or a case: `python tests/compression/make_golden.py`. A frame, once in the
repository, is decoded to the same bits by every later release; so a vector is never rewritten, only added.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from codec_cases import SETTINGS, frame_of, schema_of, training_like

from laconic.compression import decode, inspect
from laconic.compression.bits import Mask
from laconic.compression.coders import CODERS
from laconic.compression.frame import wrap
from laconic.compression.positions import POSITIONS
from laconic.compression.quantisers.ladder import Ladder
from laconic.compression.wire import float32, varint
from laconic.schema import Schema

FOLDER = Path(__file__).parent / "golden"
SCHEMA = schema_of((8, 3, 3, 3), (8,), (24, 60), (24,), (), (0, 5), (7,))


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
        number = bytes([coder.number])
        values = bytes([0x12]) + float32(ladder.scale) + bytes([ladder.rungs]) + listed
        values += number + coder.encode(signs, 1, 9) + number + coder.encode(levels, 4, 9)
        bitmap = number + coder.encode(mask.view(np.uint8), 1, 9)
        listing = varint(kept) + number + coder.encode(gaps.astype(np.uint8), 8, 9)
        rice = POSITIONS.stages[2].encode(mask, 9)
        assert rice is not None
        for position, body in ((0x20, bitmap), (0x21, listing), (0x22, rice)):
            part = b"\x03" + varint(kept) + bytes([position]) + body + values
            yield f"stages-{position:02x}-{coder.number:02x}", schema, wrap(schema, [part])


def main() -> int:
    """Write what is missing; say what was written."""
    FOLDER.mkdir(exist_ok=True)
    for name, schema, frame in (*by_settings(), *by_stages()):
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
