"""Labelled examples as records of one length in append-only files, each with a checksum of its own.

A segment is a header of 32 bytes, little-endian (magic `LACONEX1`, digest of the fields 16, incarnation 4,
CRC-32 of these 4), then records: number 8, key 8, the fields' values in the signature's order, CRC-32 4. A
record's checksum begins with the digest, the segment's number and the record's place, so that no record of
another file, place or kind of example passes for one of this.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laconic.edge_sdk.data.signature import Signature
from laconic.edge_sdk.data.snapshot import Array
from laconic.errors import DataError

HEADER: Final = struct.Struct("<8s16sII")
_MAGIC: Final = b"LACONEX1"
_PLACE: Final = struct.Struct("<II")
_IDENTITY: Final = struct.Struct("<QQ")
_CRC: Final = struct.Struct("<I")
NUMBER_BITS: Final = 40
"""The lower bits of a number count the examples of one life of the buffer, the upper its lives, from 1."""
_MOST_LIVES: Final = 2**24 - 2
_NAME: Final = re.compile(r"(\d{8})\.seg")


@dataclass
class Segment:
    """One file: what its records are numbered, and which of them are kept."""

    index: int
    size: int = 0
    """Bytes on the disk."""
    numbers: list[int] = field(default_factory=list)
    """By place; 0 for a record that cannot be used."""
    live: set[int] = field(default_factory=set)
    """Numbers of the records that are kept."""

    @property
    def name(self) -> str:
        return f"{self.index:08d}.seg"


def index_of(name: str) -> int | None:
    """The number of the segment in a file of this name; None if it is another file."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Found:
    """What the bytes of a segment say: `other` is one of another kind of example."""

    incarnation: int
    other: bool
    places: tuple[tuple[int, int, int], ...]
    """Place, number and key of each sound record."""


class Layout:
    """How an example lies in a record."""

    def __init__(self, signature: Signature) -> None:
        """Raises `DataError` for an axis of any length: records are of one length."""
        for f in signature.fields:
            if f.values is None:
                raise DataError(
                    f"shape of {f.name!r} in a buffer",
                    value=f.shape,
                    limit="every axis of a fixed length",
                    remedy="prepare the bundle with a fixed length",
                )
        parts: list[tuple[str, Any, Any]] = [
            (f"f{i}", f.dtype.newbyteorder("<"), f.shape) for i, f in enumerate(signature.fields)
        ]
        self.signature = signature
        self.dtype = np.dtype([("number", "<u8"), ("key", "<u8"), *parts, ("crc", "<u4")])
        self.record_bytes = self.dtype.itemsize
        described = repr([(f.name, f.dtype.str, f.shape, f.classes) for f in signature.fields])
        self._digest = hashlib.blake2b(described.encode(), digest_size=16).digest()

    def header(self, incarnation: int) -> bytes:
        """The first bytes of a segment."""
        head = HEADER.pack(_MAGIC, self._digest, incarnation, 0)[:-4]
        return head + _CRC.pack(zlib.crc32(head))

    def body(self, number: int, key: int, values: Iterable[Array]) -> bytes:
        """A record without its checksum; `values` in the signature's order, as the fields are."""
        return b"".join([_IDENTITY.pack(number, key), *(v.tobytes() for v in values)])

    def sealed(self, body: bytes, segment: int, place: int) -> bytes:
        """The record of `body` at a place."""
        return body + _CRC.pack(zlib.crc32(body, self._salt(segment, place)))

    def look(self, content: bytes, segment: int) -> Found:
        """Find the records of a file that may be cut, damaged or something else."""
        incarnation, other = 0, False
        if len(content) >= HEADER.size:
            magic, digest, incarnation, crc = HEADER.unpack_from(content)
            sound = crc == zlib.crc32(content[: HEADER.size - 4]) and magic == _MAGIC
            if not sound or incarnation > _MOST_LIVES:
                incarnation = 0
            else:
                other = digest != self._digest
        places = () if other else tuple(self._sound(content, segment))
        return Found(incarnation, other, places)

    def records(self, content: bytes) -> NDArray[Any]:
        """The whole records of a segment, as a structured array: a view, checksums not looked at."""
        count = max(0, len(content) - HEADER.size) // self.record_bytes
        return np.frombuffer(content, self.dtype, count, HEADER.size if count else 0)

    def sound(self, content: bytes, segment: int, place: int) -> bool:
        """Whether the record at `place` is what was written there."""
        begin = HEADER.size + place * self.record_bytes
        end = begin + self.record_bytes
        if end > len(content):
            return False
        record = memoryview(content)[begin:end]
        (crc,) = _CRC.unpack(record[-4:])
        return zlib.crc32(record[:-4], self._salt(segment, place)) == int(crc)

    def empty(self, samples: int) -> dict[str, Array]:
        """Arrays for so many examples, by the fields' names."""
        fixed = [(f, tuple(n for n in f.shape if n is not None)) for f in self.signature.fields]
        return {f.name: np.empty((samples, *shape), f.dtype) for f, shape in fixed}

    def fill(self, into: Mapping[str, Array], at: NDArray[np.intp], records: NDArray[Any]) -> None:
        """Copy the fields of `records` to the rows `at`."""
        for i, f in enumerate(self.signature.fields):
            into[f.name][at] = records[f"f{i}"]

    def labels(self, records: NDArray[Any]) -> NDArray[np.int64]:
        """Each record's class by the first target that has classes; 0 without one."""
        for i, f in enumerate(self.signature.fields):
            if f.classes and f.values == 1:
                return records[f"f{i}"].reshape(len(records)).astype(np.int64)
        return np.zeros(len(records), np.int64)

    def _sound(self, content: bytes, segment: int) -> Iterator[tuple[int, int, int]]:
        for place in range(max(0, len(content) - HEADER.size) // self.record_bytes):
            number, key = _IDENTITY.unpack_from(content, HEADER.size + place * self.record_bytes)
            if 0 < number >> NUMBER_BITS <= _MOST_LIVES and self.sound(content, segment, place):
                yield place, number, key

    def _salt(self, segment: int, place: int) -> int:
        return zlib.crc32(_PLACE.pack(segment, place), zlib.crc32(self._digest))
