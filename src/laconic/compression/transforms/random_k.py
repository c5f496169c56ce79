"""Transform 0x06 `random-k`: some values of the tensor are sent; which they are follows from a seed.

No position travels, and devices that share a seed send the same positions, so that their values can be summed
as they are (Konecny et al., "Federated learning: strategies for improving communication efficiency",
arXiv 1610.05492, section 2, "random mask").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Mask
from laconic.compression.quantisers import read_values
from laconic.compression.seeded import support
from laconic.compression.stages import Entries, TensorPart, Values, entropy_bits
from laconic.compression.transforms.sparse import SparsePart
from laconic.compression.wire import Reader, varint
from laconic.errors import Malformed
from laconic.schema import Vector


@dataclass(frozen=True, slots=True)
class SeededPositions:
    """The positions that a seed stands for."""

    seed: int
    values: int
    kept: int
    coder: str = ""

    def mask(self) -> Mask:
        """Derive them."""
        return support(self.seed, self.values, self.kept)

    def positions(self) -> NDArray[np.int64]:
        """The same, as positions."""
        return np.flatnonzero(self.mask())


@dataclass(frozen=True, slots=True)
class RandomKPart:
    """A seed, and the values at the positions that it stands for."""

    stages: tuple[str, ...]
    positions: SeededPositions
    values: Values

    @property
    def params(self) -> Mapping[str, object]:
        """How many values are kept, the seed, and the quantiser's."""
        kept, seed = self.positions.kept, self.positions.seed
        return MappingProxyType({"kept": kept, "seed": seed, **self.values.params})

    def fill(self, out: Vector) -> None:
        """Write the kept values where they belong. Raises `WireError`."""
        self._sparse().fill(out)

    def entries(self) -> Entries:
        """The kept values. Raises `WireError`."""
        return self._sparse().entries()

    def entropy_bits(self) -> float:
        """Of the kept values as symbols; positions cost nothing. Raises `WireError`."""
        return entropy_bits(np.concatenate(list(self.values.blocks())))

    def _sparse(self) -> SparsePart:
        return SparsePart(self.stages, self.positions, self.values, self.positions.kept)


@dataclass(frozen=True, slots=True)
class RandomK:
    """The varint number of kept values, a seed of 8 bytes, a quantiser over the kept values in order."""

    number: int = 0x06
    name: str = "random-k"

    def write(self, kept: int, seed: int, quantised: bytes) -> bytes:
        """`quantised`: what a quantiser wrote for the values where `seeded.support(seed, ...)` is true."""
        return bytes([self.number]) + varint(kept) + seed.to_bytes(8, "little") + quantised

    def read(self, reader: Reader, values: int) -> TensorPart:
        """Take count, seed and values. Raises `Malformed` for a count of zero or beyond the tensor."""
        kept = reader.varint("number of kept values", limit=values)
        if not kept:
            raise Malformed("number of kept values", value=0, limit="at least 1")
        seed = int.from_bytes(reader.take(8, "seed of random-k"), "little")
        quantiser, part = read_values(reader, kept)
        return RandomKPart((self.name, quantiser.name), SeededPositions(seed, values, kept), part)


RANDOM_K = RandomK()
