"""The envelope of an update frame: magic, version, flags, schema digest, tensor parts, checksum."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from laconic.compression.stages import TensorPart
from laconic.compression.transforms import TRANSFORMS
from laconic.compression.wire import Reader, varint
from laconic.errors import ChecksumMismatch, Malformed, UnsupportedVersion
from laconic.schema import Schema

MAGIC = b"LUF"
VERSION = 1
DIGEST_BYTES = 8
CHECKSUM_BYTES = 4
_SMALLEST = len(MAGIC) + 2 + DIGEST_BYTES + 1 + CHECKSUM_BYTES


@dataclass(frozen=True, slots=True)
class Section:
    """One tensor's place in a frame: its number of values, its bytes, its part not yet decoded."""

    values: int
    bytes: int
    part: TensorPart


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose structure and checksum are known to be right; nothing is decompressed yet."""

    version: int
    digest: bytes
    bytes: int
    sections: tuple[Section, ...]


def wrap(schema: Schema, sections: list[bytes]) -> bytes:
    """The tensors' parts, in schema order, to a frame."""
    head = MAGIC + bytes([VERSION, 0]) + schema.digest + varint(len(sections))
    sized = [varint(t.size) + part for t, part in zip(schema.tensors, sections, strict=True)]
    body = head + b"".join(sized)
    return body + zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "little")


def unwrap(frame: bytes, schema: Schema | None) -> Frame:
    """Read a frame's structure, against a schema if there is one; allocates in proportion to the sections.

    Raises `Malformed`, `ChecksumMismatch`, `UnsupportedVersion` or `NonFinite`.
    """
    if len(frame) < _SMALLEST:
        raise Malformed("length of an update frame", value=len(frame), limit=f"at least {_SMALLEST}")
    if frame[: len(MAGIC)] != MAGIC:
        raise Malformed("magic of an update frame", value=frame[: len(MAGIC)].hex(), limit=MAGIC.hex())
    version, flags = frame[len(MAGIC)], frame[len(MAGIC) + 1]
    if version != VERSION or flags:
        raise UnsupportedVersion(
            "version and flags of an update frame",
            value=(version, flags),
            limit=(VERSION, 0),
            remedy="decode with a newer release",
        )
    promised = int.from_bytes(frame[-CHECKSUM_BYTES:], "little")
    found = zlib.crc32(memoryview(frame)[:-CHECKSUM_BYTES])
    if found != promised:
        raise ChecksumMismatch("checksum of an update frame", value=f"{found:08x}", limit=f"{promised:08x}")
    reader = Reader(memoryview(frame)[:-CHECKSUM_BYTES], len(MAGIC) + 2)
    digest = bytes(reader.take(DIGEST_BYTES, "schema digest"))
    if schema is not None and digest != schema.digest:
        raise Malformed(
            "schema digest of an update frame",
            value=digest.hex(),
            limit=schema.digest.hex(),
            remedy="the update belongs to another model: encode against the same schema",
        )
    count = reader.varint("number of tensors", limit=reader.left)
    sizes = [t.size for t in schema.tensors] if schema is not None else [None] * count
    if count != len(sizes):
        raise Malformed("number of tensors", value=count, limit=len(sizes))
    sections = tuple(_section(reader, size) for size in sizes)
    if reader.left:
        raise Malformed("bytes after the last tensor", value=reader.left, limit=0)
    return Frame(version, digest, len(frame), sections)


def _section(reader: Reader, size: int | None) -> Section:
    start = reader.at
    values = reader.varint("number of values")
    if size is not None and values != size:
        raise Malformed("number of values", value=values, limit=size)
    part = TRANSFORMS.read(reader).read(reader, values)
    return Section(values, reader.at - start, part)
