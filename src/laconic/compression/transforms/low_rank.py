"""Transform 0x05 `low rank`: a product of two narrow integer matrices, and a nested part for the rest.

Updates of dense layers have few directions: a gradient of a batch is a sum of one outer product a sample, and
local training repeats much the same ones (Vogels et al., "PowerSGD", NeurIPS 2019, section 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from laconic.compression.factors import (
    MAX_CODE,
    MAX_RANK,
    MIN_FACTOR_SCALE,
    TOKENS,
    FactorBytes,
    IntegerFactors,
    most_entries,
    symbol_entropy_bits,
    write_factors,
)
from laconic.compression.piece import Given, Piece, Product
from laconic.compression.stages import Registry, TensorPart, Transform, finite
from laconic.compression.transforms.grid import GRID
from laconic.compression.transforms.multiples import MULTIPLES
from laconic.compression.transforms.sparse import SPARSE
from laconic.compression.transforms.zero import ZERO
from laconic.compression.wire import Reader, float32, varint
from laconic.errors import Malformed, NonFinite
from laconic.schema import Vector

NESTED: Registry[Transform] = Registry("nested transform", range(0x01, 0x10), (ZERO, SPARSE, GRID, MULTIPLES))
"""What may hold the rest."""


@dataclass(frozen=True, slots=True)
class LowRankPart:
    """Factors, and the part that is added to their product."""

    stages: tuple[str, ...]
    factors: FactorBytes
    rest: TensorPart

    @property
    def params(self) -> Mapping[str, object]:
        """The rank, the matrix's sizes, and the rest's."""
        f = self.factors
        sizes = {"rank": len(f.codes), "rows": f.rows, "columns": f.columns, "factor bytes": len(f.body)}
        return MappingProxyType({**sizes, **self.rest.params})

    def fill(self, out: Vector) -> None:
        """Write the product and add the rest. Raises `WireError`."""
        entries = self.rest.entries()
        factors = self.factors.decode()
        if entries is None:
            self._fill_both(out, factors)
        else:
            self._fill(out, factors, *entries)

    def entries(self) -> None:
        """None: most values of a product are not zero."""
        return None

    def piece(self, start: int) -> Piece:
        """The tensor for a sum, at `start` in the flat vector, made when it is added. Raises `WireError`."""
        factors = self.factors.decode()
        entries = self.rest.entries()
        if entries is None:
            out = np.zeros(self.factors.rows * self.factors.columns, np.float32)
            self._fill_both(out, factors)
            return Given(slice(start, start + out.size), out)
        positions, values = entries
        # Rounding keeps the order, so this bounds all sums.
        bound = np.float32(factors.bound())
        with np.errstate(over="ignore"):
            bound += np.abs(values).max(initial=np.float32(0))
        # Of more positions, at 12 bytes each, the vector itself is the smaller.
        if np.isfinite(bound) and 4 * positions.size <= self.factors.rows * self.factors.columns:
            return Product(start, factors, positions, values, float(bound))
        out = np.empty(self.factors.rows * self.factors.columns, np.float32)
        self._fill(out, factors, positions, values)
        return Given(slice(start, start + out.size), out)

    def _fill_both(self, out: Vector, factors: IntegerFactors) -> None:
        """A rest that has every value is written first: no second vector is needed."""
        self.rest.fill(out)
        factors.fill(out, add=True)
        if not finite(out):
            raise NonFinite("value of a low rank tensor", value="a sum beyond float32")

    def _fill(self, out: Vector, factors: IntegerFactors, where: NDArray[np.int64], values: Vector) -> None:
        factors.fill(out)
        with np.errstate(over="ignore"):
            sums = out[where] + values
        if not np.isfinite(sums).all():
            raise NonFinite("value of a low rank tensor", value="a sum beyond float32")
        out[where] = sums

    def entropy_bits(self) -> float:
        """Of the integers as symbols, and of the rest. Raises `WireError`."""
        return symbol_entropy_bits(self.factors.decode()) + self.rest.entropy_bits()


@dataclass(frozen=True, slots=True)
class LowRank:
    """Columns, rank, scale, a multiplier a component, the body of the factors' symbols, and a nested part."""

    number: int = 0x05
    name: str = "low rank"

    def write(self, factors: IntegerFactors, nested: bytes) -> bytes | None:
        """The transform's number and its part; None for factors that are too regular for a decoder's bounds.

        `nested`: what a transform of `NESTED` wrote for the tensor less the factors' product.
        """
        written = write_factors(factors)
        if written is None:
            return None
        alphabet, body = written
        head = bytes([self.number]) + varint(factors.right.shape[0]) + bytes([factors.rank])
        head += float32(factors.scale) + bytes(factors.codes) + bytes([alphabet]) + varint(len(body))
        return head + body + nested

    def read(self, reader: Reader, values: int) -> TensorPart:
        """Take factors and the nested part. Raises `Malformed` for sizes that do not fit the tensor."""
        columns = reader.varint("columns of a low rank part", limit=values)
        if not columns or values % columns:
            raise Malformed("columns of a low rank part", value=columns, limit=f"a divisor of {values}")
        rows = values // columns
        rank = reader.byte("rank of a low rank part")
        if not 1 <= rank <= MAX_RANK or rank * (rows + columns) > most_entries(values):
            limit = min(MAX_RANK, most_entries(values) // (rows + columns))
            raise Malformed("rank of a low rank part", value=rank, limit=f"1 to {limit}")
        scale = reader.scale("scale of a low rank part")
        if scale < MIN_FACTOR_SCALE:
            raise Malformed("scale of a low rank part", value=scale, limit=f"at least {MIN_FACTOR_SCALE!r}")
        codes = tuple(reader.take(rank, "multipliers of a low rank part"))
        if max(codes) > MAX_CODE:
            raise Malformed("multiplier of a low rank part", value=max(codes), limit=MAX_CODE)
        alphabet = reader.byte("alphabet of a low rank part")
        if not 1 <= alphabet <= TOKENS:
            raise Malformed("alphabet of a low rank part", value=alphabet, limit=f"1 to {TOKENS}")
        length = reader.varint("length of a low rank part's factors", limit=reader.left)
        body = reader.take(length, "factors of a low rank part")
        rest = NESTED.read(reader).read(reader, values)
        factors = FactorBytes(rows, columns, codes, scale, alphabet, body)
        return LowRankPart((self.name, *rest.stages), factors, rest)


LOW_RANK = LowRank()
