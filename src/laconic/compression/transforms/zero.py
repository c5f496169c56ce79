"""Transform 0x01 `zero`: nothing of the tensor is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from laconic.compression.stages import Entries, TensorPart
from laconic.compression.wire import Reader
from laconic.schema import Vector


@dataclass(frozen=True, slots=True)
class ZeroPart:
    """A tensor of zeros."""

    stages: tuple[str, ...] = ("zero",)

    @property
    def params(self) -> Mapping[str, object]:
        """None."""
        return MappingProxyType({})

    def fill(self, out: Vector) -> None:
        """Leave `out` as it is."""

    def entries(self) -> Entries:
        """None of the values."""
        return np.empty(0, np.int64), np.empty(0, np.float32)

    def entropy_bits(self) -> float:
        """Nothing is sent."""
        return 0.0


@dataclass(frozen=True, slots=True)
class Zero:
    """No bytes beyond its number."""

    number: int = 0x01
    name: str = "zero"

    def write(self) -> bytes:
        """The number alone."""
        return bytes([self.number])

    def read(self, reader: Reader, values: int) -> TensorPart:
        """Take nothing."""
        return ZeroPart()


ZERO = Zero()
