"""Quantiser 0x10 `float32`: the values themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from laconic.compression.stages import blocks, finite
from laconic.compression.wire import Reader
from laconic.errors import NonFinite
from laconic.schema import Vector


@dataclass(frozen=True, slots=True)
class Float32Values:
    """A view of little-endian float32 values."""

    data: memoryview
    count: int

    @property
    def params(self) -> Mapping[str, object]:
        """None."""
        return MappingProxyType({})

    def blocks(self) -> Iterator[Vector]:
        """The values, bit for bit. Raises `NonFinite`."""
        for start, stop in blocks(self.count):
            block = np.frombuffer(self.data[4 * start : 4 * stop], "<f4").astype(np.float32, copy=False)
            if not finite(block):
                raise NonFinite("value of an update", value="NaN or infinity")
            yield block


@dataclass(frozen=True, slots=True)
class Float32:
    """Four bytes a value, with no entropy coder: exact, and an honest baseline."""

    number: int = 0x10
    name: str = "float32"

    def write(self, values: Vector) -> bytes:
        """`values`: finite float32, shape `(count,)`."""
        return bytes([self.number]) + values.astype("<f4", copy=False).tobytes()

    def read(self, reader: Reader, count: int) -> Float32Values:
        """Take `4 * count` bytes."""
        return Float32Values(reader.take(4 * count, "float32 values"), count)


FLOAT32 = Float32()
