"""What a stage is: the four seams of the codec, and the immutable registry of permanent numbers.

A tensor's section is made by a *transform* (which values are sent), whose parts are written by a *quantiser*
(values to codes), a *position coder* (which values those are) and *coders* (codes to bytes). Every stage has
one byte as its number, and keeps it for ever.

Decoding has two steps, so that a frame can be inspected without allocating what it asks for: `read` checks
the structure and keeps views of the frame; the value that it returns does the work later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Codes, Mask
from laconic.compression.wire import Reader
from laconic.errors import UnsupportedVersion
from laconic.schema import Vector

Entries: TypeAlias = tuple[NDArray[np.int64], Vector]
"""Rising positions in a tensor, and the values there: both of shape `(kept,)`."""

BLOCK = 1 << 16
"""Values that a decoder turns into float32 at a time: bounds its scratch memory."""


class Stage(Protocol):
    """Anything with a permanent number."""

    @property
    def number(self) -> int:
        """One byte, permanent."""
        ...

    @property
    def name(self) -> str:
        """What `codec inspect` prints."""
        ...


class Stream(Protocol):
    """Codes as they lie in a frame."""

    @property
    def coder(self) -> str:
        """Name of the coder."""
        ...

    def codes(self) -> Codes:
        """Decode: uint8, shape `(count,)`, each below `2 ** width`. Raises `WireError`."""
        ...


class Coder(Stage, Protocol):
    """Codes of a known width and count to bytes and back."""

    def encode(self, codes: Codes, width: int, level: int) -> bytes | None:
        """The bytes after the coder's number; None if this coder does not suit. `level`: zstd's, 1 to 19."""
        ...

    def read(self, reader: Reader, count: int, width: int) -> Stream:
        """Take this coder's bytes from `reader`."""
        ...


class PositionSet(Protocol):
    """Positions as they lie in a frame."""

    @property
    def coder(self) -> str:
        """Name of the coder behind the position coder; empty if there is none."""
        ...

    def mask(self) -> Mask:
        """Decode: bool, shape `(values,)`, with exactly `kept` true. Raises `WireError`."""
        ...

    def positions(self) -> NDArray[np.int64]:
        """The same, as rising positions: shape `(kept,)`. Raises `WireError`."""
        ...


class PositionCoder(Stage, Protocol):
    """A set of positions to bytes and back."""

    def encode(self, positions: NDArray[np.int64], values: int, level: int) -> bytes | None:
        """The bytes after the coder's number; None if this coder does not suit so many positions.

        `positions`: rising, at least one, each below `values`. `level`: zstd's, 1 to 19.
        """
        ...

    def read(self, reader: Reader, values: int, kept: int) -> PositionSet:
        """Take this coder's bytes from `reader`."""
        ...


@runtime_checkable
class Values(Protocol):
    """Quantised values as they lie in a frame."""

    @property
    def params(self) -> Mapping[str, object]:
        """What `codec inspect` prints beside the quantiser's name."""
        ...

    def blocks(self) -> Iterator[Vector]:
        """Decode: float32 pieces of `BLOCK` values, the last one shorter. Raises `WireError`."""
        ...


class Quantiser(Stage, Protocol):
    """The reading side of a quantiser; each has its own writing function, with its own arguments."""

    def read(self, reader: Reader, count: int) -> Values:
        """Take this quantiser's bytes from `reader`."""
        ...


class TensorPart(Protocol):
    """One tensor as it lies in a frame."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages used, outermost first."""
        ...

    @property
    def params(self) -> Mapping[str, object]:
        """The stages' parameters, by name."""
        ...

    def fill(self, out: Vector) -> None:
        """Write the tensor into `out`: float32, shape `(values,)`, all zero before. Raises `WireError`."""
        ...

    def entries(self) -> Entries | None:
        """The values that are not zero, for a fold that skips the others; None if most are sent.

        Raises `WireError`.
        """
        ...

    def entropy_bits(self) -> float:
        """The order-0 entropy of what is sent, positions included: what `codec inspect` compares with.

        Raises `WireError`.
        """
        ...


class Transform(Stage, Protocol):
    """The reading side of a transform."""

    def read(self, reader: Reader, values: int) -> TensorPart:
        """Take one tensor's bytes from `reader`."""
        ...


S = TypeVar("S", bound=Stage)


@dataclass(frozen=True)
class Registry(Generic[S]):
    """The stages of one kind, each under its permanent number; `numbers` belong to this kind alone.

    Immutable: a stage is added here, in the source, or nowhere. Raises `ValueError` for two stages with one
    number, and for a number of another kind.
    """

    kind: str
    numbers: range
    stages: tuple[S, ...]

    def __post_init__(self) -> None:
        numbers = [s.number for s in self.stages]
        if len(set(numbers)) != len(numbers):
            raise ValueError(f"{self.kind}: two stages share a number: {numbers}")
        if not all(n in self.numbers for n in numbers):
            raise ValueError(f"{self.kind}: number outside {self.numbers}: {numbers}")

    @cached_property
    def by_number(self) -> Mapping[int, S]:
        """Every stage under its number."""
        return MappingProxyType({s.number: s for s in self.stages})

    def __iter__(self) -> Iterator[S]:
        return iter(self.stages)

    def read(self, reader: Reader) -> S:
        """The stage whose number comes next. Raises `UnsupportedVersion` for an unknown one."""
        number = reader.byte(f"number of a {self.kind}")
        if number in self.by_number:
            return self.by_number[number]
        raise UnsupportedVersion(
            f"number of a {self.kind}",
            value=f"{number:#04x}",
            limit=", ".join(f"{s.number:#04x} {s.name}" for s in self.stages),
            remedy="decode with a newer release",
        )


def blocks(count: int, size: int = BLOCK) -> Iterator[tuple[int, int]]:
    """The bounds of each block of `count` values."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


def entropy_bits(symbols: NDArray[np.generic]) -> float:
    """The order-0 entropy of an array's distinct elements, times their number (Shannon, 1948, section 6)."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / symbols.size)).sum()) if symbols.size else 0.0


DOT = 1 << 13
"""Values of a dot product at a time: fewer than OpenBLAS spreads over threads, which on a busy machine spin
until the last of them has had its turn (measured: ten times as long)."""


def finite(values: Vector) -> bool:
    """True if no value is NaN or infinite."""
    # One pass over memory, and nothing written: a sum of squares is finite only if every value is.
    with np.errstate(over="ignore", invalid="ignore"):
        if all(np.isfinite(np.dot(v, v)) for v in (values[a:b] for a, b in blocks(values.size, DOT))):
            return True
    return bool(np.isfinite(values).all())
