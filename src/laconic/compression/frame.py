"""The envelope of an update frame: magic, version, flags, schema digest, sections, checksum.

A section holds one tensor, except for the first of a frame whose *pool* is not empty: that one holds all the
tensors of the pool, one after the other, so that a dozen biases pay for one set of headers.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from laconic.compression.stages import TensorPart
from laconic.compression.transforms import TRANSFORMS
from laconic.compression.wire import Reader, varint
from laconic.errors import ChecksumMismatch, Malformed, UnsupportedVersion
from laconic.schema import Schema, Vector

MAGIC = b"LUF"
VERSION = 2
WITHOUT_POOL = 1
"""The version of frames that have a section for every tensor."""
DIGEST_BYTES = 8
CHECKSUM_BYTES = 4
_SMALLEST = len(MAGIC) + 2 + DIGEST_BYTES + 1 + CHECKSUM_BYTES


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of values in a frame, its part not yet decoded.

    `tensors` are the indices of the tensors that it holds, one after the other.
    """

    tensors: tuple[int, ...]
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


def layout(tensors: int, pool: Collection[int]) -> tuple[tuple[int, ...], ...]:
    """The indices of the tensors that each section holds: the pool first, if there is one, then the
    others."""
    pooled = tuple(i for i in range(tensors) if i in pool)
    alone = tuple((i,) for i in range(tensors) if i not in pool)
    return (pooled, *alone) if pooled else alone


def gathered(vector: Vector, schema: Schema, tensors: tuple[int, ...]) -> Vector:
    """The values of some tensors, one after the other: a view if they lie so in the vector."""
    stretch = together(schema, tensors)
    if stretch is not None:
        return vector[stretch]
    return np.concatenate([vector[schema.slices[i]] for i in tensors])


def together(schema: Schema, tensors: tuple[int, ...]) -> slice | None:
    """Where some tensors (at least one) lie in the vector, if nothing lies between them."""
    first, last = tensors[0], tensors[-1]
    if last - first != len(tensors) - 1:
        return None
    return slice(schema.slices[first].start, schema.slices[last].stop)


def wrap(schema: Schema, pool: Collection[int], parts: Sequence[bytes]) -> bytes:
    """The sections' parts, in the order of `layout`, to a frame."""
    count = len(schema.tensors)
    bitmap = np.zeros(count, np.bool_)
    bitmap[list(pool)] = True
    head = MAGIC + bytes([VERSION, 0]) + schema.digest + varint(count)
    head += np.packbits(bitmap, bitorder="little").tobytes()
    sizes = [sum(schema.tensors[i].size for i in tensors) for tensors in layout(count, pool)]
    pieces = [head]
    for size, part in zip(sizes, parts, strict=True):
        pieces += varint(size), part
    checksum = 0
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return b"".join((*pieces, checksum.to_bytes(CHECKSUM_BYTES, "little")))


def unwrap(frame: bytes, schema: Schema | None) -> Frame:
    """Read a frame's structure, against a schema if there is one; allocates in proportion to the sections.

    Raises `Malformed`, `ChecksumMismatch`, `UnsupportedVersion` or `NonFinite`.
    """
    if len(frame) < _SMALLEST:
        raise Malformed("length of an update frame", value=len(frame), limit=f"at least {_SMALLEST}")
    if frame[: len(MAGIC)] != MAGIC:
        raise Malformed("magic of an update frame", value=frame[: len(MAGIC)].hex(), limit=MAGIC.hex())
    version, flags = frame[len(MAGIC)], frame[len(MAGIC) + 1]
    if version not in (WITHOUT_POOL, VERSION) or flags:
        raise UnsupportedVersion(
            "version and flags of an update frame",
            value=(version, flags),
            limit=f"{WITHOUT_POOL} or {VERSION}, 0",
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
    # A tensor alone takes three bytes or more of a frame, one in the pool a bit.
    count = reader.varint("number of tensors", limit=reader.left * (1 if version == WITHOUT_POOL else 8))
    if schema is not None and count != len(schema.tensors):
        raise Malformed("number of tensors", value=count, limit=len(schema.tensors))
    bitmap = b"" if version == WITHOUT_POOL else bytes(reader.take((count + 7) // 8, "pool"))
    outside, stretches = _layout_by(bitmap, count)
    if outside > reader.left:
        raise Malformed("tensors outside the pool", value=outside, limit=reader.left)
    sections = tuple(_section(reader, tensors, schema) for tensors in stretches)
    if reader.left:
        raise Malformed("bytes after the last section", value=reader.left, limit=0)
    return Frame(version, digest, len(frame), sections)


@lru_cache(maxsize=8)
def _layout_by(bitmap: bytes, count: int) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """How many tensors lie outside the pool, and the layout: the same for all frames of a campaign."""
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    if bits[count:].any():
        raise Malformed("padding of the pool", value=bitmap[-1], limit="0 beyond the last tensor")
    pool = frozenset(np.flatnonzero(bits).tolist())
    return count - len(pool), layout(count, pool)


def _section(reader: Reader, tensors: tuple[int, ...], schema: Schema | None) -> Section:
    start = reader.at
    values = reader.varint("number of values")
    if schema is not None:
        size = sum(schema.tensors[i].size for i in tensors)
        if values != size:
            raise Malformed("number of values", value=values, limit=size)
    part = TRANSFORMS.read(reader).read(reader, values)
    return Section(tensors, values, reader.at - start, part)
