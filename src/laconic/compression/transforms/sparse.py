"""Transform 0x03 `sparse`: some values of the tensor are sent, with their positions; the others are zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from laconic.compression.positions import read_positions, write_positions
from laconic.compression.quantisers import read_values
from laconic.compression.stages import BLOCK, Entries, PositionSet, TensorPart, Values, entropy_bits
from laconic.compression.wire import Reader, varint
from laconic.errors import Malformed
from laconic.schema import Vector


@dataclass(frozen=True, slots=True)
class SparsePart:
    """Positions and the values at them."""

    stages: tuple[str, ...]
    positions: PositionSet
    values: Values
    kept: int

    @property
    def params(self) -> Mapping[str, object]:
        """How many values are kept, and the quantiser's."""
        return MappingProxyType({"kept": self.kept, "positions": self.positions.coder, **self.values.params})

    def fill(self, out: Vector) -> None:
        """Write the kept values where they belong. Raises `WireError`."""
        if self.kept <= out.size // 16:
            # Twelve bytes a kept value, and a third of the time.
            positions, values = self.entries()
            out[positions] = values
            return
        mask = self.positions.mask()
        # The tensor is walked in pieces that hold at most one block of values, which bounds scratch memory.
        starts = range(0, out.size, BLOCK)
        counts = [int(np.count_nonzero(mask[s : s + BLOCK])) for s in starts]
        pending = np.empty(0, np.float32)
        source = self.values.blocks()
        for start, count in zip(starts, counts, strict=True):
            while pending.size < count:
                pending = np.concatenate([pending, next(source)])
            out[start : start + BLOCK][mask[start : start + BLOCK]] = pending[:count]
            pending = pending[count:]

    def entries(self) -> Entries:
        """The kept values. Raises `WireError`."""
        positions, values = self.positions.positions(), list(self.values.blocks())
        return positions, values[0] if len(values) == 1 else np.concatenate(values)

    def entropy_bits(self) -> float:
        """Of the kept values as symbols and of the mask. Raises `WireError`."""
        return entropy_bits(self.positions.mask()) + entropy_bits(self.entries()[1])


@dataclass(frozen=True, slots=True)
class Sparse:
    """The varint number of kept values, their positions, a quantiser over the kept values in order."""

    number: int = 0x03
    name: str = "sparse"

    def write(self, positions: NDArray[np.int64], values: int, quantised: bytes, level: int) -> bytes:
        """`positions`: rising, at least one, each below `values`; `quantised`: what a quantiser wrote for the
        values there."""
        head = bytes([self.number]) + varint(positions.size)
        return head + write_positions(positions, values, level) + quantised

    def read(self, reader: Reader, values: int) -> TensorPart:
        """Take count, positions and values. Raises `Malformed` for a count of zero or beyond the tensor."""
        kept = reader.varint("number of kept values", limit=values)
        if not kept:
            raise Malformed("number of kept values", value=0, limit="at least 1")
        coder, positions = read_positions(reader, values, kept)
        quantiser, part = read_values(reader, kept)
        names = (self.name, coder.name, quantiser.name)
        return SparsePart(names, positions, part, kept)


SPARSE = Sparse()
