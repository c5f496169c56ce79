"""Coder 0x31 `packed`: codes of their own width, bit after bit."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.compression.bits import Codes, pack, packed_size, unpack
from laconic.compression.wire import Reader


@dataclass(frozen=True, slots=True)
class PackedStream:
    """A view of packed codes."""

    data: memoryview
    count: int
    width: int
    coder: str = "packed"

    def codes(self) -> Codes:
        """Unpack. Raises `Malformed` for padding that is not zero."""
        return unpack(self.data, self.count, self.width)


@dataclass(frozen=True, slots=True)
class Packed:
    """`width` bits a code, lowest bit first; no length, since count and width say it."""

    number: int = 0x31
    name: str = "packed"

    def encode(self, codes: Codes, width: int, level: int) -> bytes:
        """Bit-pack `codes`."""
        return pack(codes, width)

    def read(self, reader: Reader, count: int, width: int) -> PackedStream:
        """Take as many bytes as `count` codes fill."""
        return PackedStream(reader.take(packed_size(count, width), "packed codes"), count, width)


PACKED = Packed()
