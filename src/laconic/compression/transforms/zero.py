"""Transform 0x01 `zero`: nothing of the tensor is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from laconic.compression.stages import TensorPart
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
