"""Coder 0x34 `adaptive`: codes under frequencies that both sides learn as they go."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.compression import adaptive
from laconic.compression.bits import Codes
from laconic.compression.wire import Reader, varint
from laconic.errors import Malformed


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

    def encode(self, codes: Codes, width: int, level: int) -> bytes | None:
        """Code `codes`; `level` is not used. None for codes so regular that no decoder would take them."""
        body = adaptive.encode(codes, None, alphabet=1 << width)
        return varint(len(body)) + body if adaptive.affordable(codes.size, len(body)) else None

    def read(self, reader: Reader, count: int, width: int) -> AdaptiveStream:
        """Take the length and the body. Raises `Malformed` for few bytes that would stand for many codes."""
        size = reader.varint("length of an adaptive stream")
        if not adaptive.affordable(count, size):
            raise Malformed("codes of an adaptive stream", value=count, limit="131072 and 64 a byte")
        return AdaptiveStream(reader.take(size, "adaptive stream"), count, width)


ADAPTIVE = Adaptive()
