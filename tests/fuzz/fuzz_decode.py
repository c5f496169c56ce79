"""Fuzz target: any bytes at all through `decode` and `inspect`; only a `WireError` may come out.

`python tests/fuzz/fuzz_decode.py CORPUS [libFuzzer's options]`, or through `scripts/fuzz`. Needs atheris
(`pip install laconic[fuzz]`). The golden frames are written into the folder CORPUS as seeds; with a file in
its place, that input alone is run. An input is a frame with a byte before it that says against which schema
it is decoded and whether digest and checksum are put right: a fuzzer cannot guess CRC-32. Every frame is
decoded twice, by plain Python and by the compiled kernels, which must say the same.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["laconic"]):
    from laconic.compression import decode, inspect, native
    from laconic.errors import LimitExceeded, WireError
    from laconic.schema import Schema, TensorSpec

if not native.load():
    raise SystemExit("the compiled kernels cannot be loaded")

GOLDEN = Path(__file__).parents[1] / "compression" / "golden"
LIMIT_BYTES = 1 << 20


def schemas() -> tuple[Schema, ...]:
    """Every schema of the golden frames."""
    found: dict[bytes, Schema] = {}
    for path in sorted(GOLDEN.glob("*.json")):
        shapes = json.loads(path.read_text())["schema"]
        schema = Schema(tuple(TensorSpec(name, tuple(shape)) for name, shape in shapes))
        found[schema.digest] = schema
    return tuple(found.values())


SCHEMAS = schemas()


def outcome(frame: bytes, schema: Schema, *, natively: bool) -> bytes | tuple[type[WireError], str]:
    """The vector's bytes, or the refusal."""
    native.ready = lambda symbols, **_: natively
    try:
        out = decode(frame, schema, limit_bytes=LIMIT_BYTES)
    except WireError as error:
        return type(error), str(error)
    assert out.shape == (schema.size,)
    assert abs(out).max(initial=0) < float("inf")
    return out.tobytes()


def one_input(data: bytes) -> None:
    """Decode and inspect; what a frame promises must hold for what is decoded."""
    if not data:
        return
    choice, frame = data[0], data[1:]
    schema = SCHEMAS[(choice >> 1) % len(SCHEMAS)]
    if choice & 1 and len(frame) >= 17:
        body = frame[:5] + schema.digest + frame[13:-4]
        frame = body + zlib.crc32(body).to_bytes(4, "little")
    plain, compiled = (outcome(frame, schema, natively=n) for n in (False, True))
    assert compiled == plain, f"{compiled!r} by the kernels, {plain!r} without"
    try:
        info = inspect(frame)
    except WireError:
        pass
    else:
        assert info.bytes == len(frame)
    try:
        decode(frame, schema, limit_bytes=4 * schema.size - 1)
    except LimitExceeded:
        return
    raise AssertionError("a vector larger than its limit")


def seeds(folder: Path) -> None:
    """The golden frames, each against its own schema."""
    digests = [schema.digest for schema in SCHEMAS]
    for path in sorted(GOLDEN.glob("*.frame")):
        frame = path.read_bytes()
        choice = 2 * digests.index(frame[5:13]) + 1
        (folder / path.stem).write_bytes(bytes([choice]) + frame)


def main() -> None:
    """libFuzzer's loop, until its options end it."""
    if Path(sys.argv[1]).is_dir():
        seeds(Path(sys.argv[1]))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
