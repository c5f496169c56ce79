"""Quantiser 0x15 `planes`: float32 bit for bit, as four streams of bytes.

The 32 bits of a value are turned left by one, so that the exponent fills the highest byte and the sign is
the lowest bit. The exponents of a model's weights are few and cost 2 to 3 bits instead of 8; the lower bytes
are as good as random, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from laconic.compression.coders import read_codes, write_codes
from laconic.compression.stages import Stream, blocks
from laconic.compression.wire import Reader
from laconic.errors import NonFinite
from laconic.schema import Vector

PLANES = 4


@dataclass(frozen=True, slots=True)
class PlanesValues:
    """Byte planes as they lie in a frame, the exponents first."""

    planes: tuple[Stream, ...]
    count: int

    @property
    def params(self) -> Mapping[str, object]:
        """The coder of each plane."""
        return MappingProxyType({"planes": ", ".join(p.coder for p in self.planes)})

    def blocks(self) -> Iterator[Vector]:
        """The values, bit for bit. Raises `Malformed` or `NonFinite`."""
        planes = [p.codes() for p in self.planes]
        if planes[0].size and int(planes[0].max()) == 0xFF:
            raise NonFinite("value of an update", value="NaN or infinity")
        for start, stop in blocks(self.count):
            turned = np.empty((stop - start, PLANES), np.uint8)
            for i, plane in enumerate(planes):
                turned[:, PLANES - 1 - i] = plane[start:stop]
            bits = turned.view("<u4")[:, 0].astype(np.uint32, copy=False)
            yield (bits >> np.uint32(1) | bits << np.uint32(31)).view(np.float32)


@dataclass(frozen=True, slots=True)
class Planes:
    """Four code streams of 8 bits: exponents, then the mantissa from its top, the sign in the last."""

    number: int = 0x15
    name: str = "planes"

    def write(self, values: Vector, level: int) -> bytes:
        """`values`: finite float32, shape `(count,)`; `level` is zstd's."""
        bits = values.view(np.uint32)
        turned = (bits << np.uint32(1) | bits >> np.uint32(31)).astype("<u4", copy=False).view(np.uint8)
        planes = (np.ascontiguousarray(turned[i::PLANES]) for i in reversed(range(PLANES)))
        return bytes([self.number]) + b"".join(write_codes(plane, 8, level) for plane in planes)

    def read(self, reader: Reader, count: int) -> PlanesValues:
        """Take the four streams."""
        return PlanesValues(tuple(read_codes(reader, count, 8) for _ in range(PLANES)), count)


FLOAT_PLANES = Planes()
