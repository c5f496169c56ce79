"""Transform 0x02 `dense`: every value of the tensor is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from laconic.compression.quantisers import read_values
from laconic.compression.stages import Entries, TensorPart, Values, entropy_bits
from laconic.compression.wire import Reader
from laconic.errors import Malformed
from laconic.schema import Vector


@dataclass(frozen=True, slots=True)
class DensePart:
    """Every value, quantised."""

    stages: tuple[str, ...]
    values: Values

    @property
    def params(self) -> Mapping[str, object]:
        """The quantiser's."""
        return self.values.params

    def fill(self, out: Vector) -> None:
        """Write the values in order. Raises `WireError`."""
        at = 0
        for block in self.values.blocks():
            out[at : at + block.size] = block
            at += block.size

    def entries(self) -> Entries | None:
        """None: every value is sent."""
        return None

    def entropy_bits(self) -> float:
        """Of the values, as symbols. Raises `WireError`."""
        return entropy_bits(np.concatenate(list(self.values.blocks())))


@dataclass(frozen=True, slots=True)
class Dense:
    """A quantiser over the whole tensor."""

    number: int = 0x02
    name: str = "dense"

    def write(self, quantised: bytes) -> bytes:
        """`quantised`: what a quantiser wrote for every value of the tensor."""
        return bytes([self.number]) + quantised

    def read(self, reader: Reader, values: int) -> TensorPart:
        """Take the quantised values. Raises `Malformed` for an empty tensor, which is `zero`."""
        if not values:
            raise Malformed("number of values of a dense tensor", value=0, limit="at least 1")
        quantiser, part = read_values(reader, values)
        return DensePart((self.name, quantiser.name), part)


DENSE = Dense()
