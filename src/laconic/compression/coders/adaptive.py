"""Coder 0x34 `adaptive`: codes under frequencies that both sides learn as they go."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.compression import adaptive
from laconic.compression.bits import Codes
from laconic.compression.wire import Reader, varint


@dataclass(frozen=True, slots=True)
class AdaptiveStream:
    """A view of adaptively coded codes."""

    data: memoryview
    count: int
    width: int
    coder: str = "adaptive"

    def codes(self) -> Codes:
        """Decode. Raises `Malformed`."""
        return adaptive.decode(self.data, None, self.count, alphabet=1 << self.width)


@dataclass(frozen=True, slots=True)
class Adaptive:
    """A varint length, then a body of one stream: alphabet `2 ** width`, one context."""

    number: int = 0x34
    name: str = "adaptive"

    def encode(self, codes: Codes, width: int, level: int) -> bytes:
        """Code `codes`; `level` is not used."""
        body = adaptive.encode(codes, None, alphabet=1 << width)
        return varint(len(body)) + body

    def read(self, reader: Reader, count: int, width: int) -> AdaptiveStream:
        """Take the length and the body."""
        size = reader.varint("length of an adaptive stream")
        return AdaptiveStream(reader.take(size, "adaptive stream"), count, width)


ADAPTIVE = Adaptive()
