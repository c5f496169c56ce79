"""Quantiser 0x14 `rotated`: blocks turned by a randomised Hadamard transform, then 1 to 4 bits a coordinate.

A turned block looks Gaussian whatever was in it, so that one scale and a fixed set of levels fit it (DRIVE,
Vargaftik et al., NeurIPS 2021, arXiv 2105.08339, with 1 bit; EDEN, ICML 2022, arXiv 2108.08842, with more).

A value is an integer times its block's scale: levels are integers, and sums of them with signs stay below
2 ** 24. The factor of the inverse transform, a power of sqrt(2), is part of the scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Codes
from laconic.compression.coders import read_codes, write_codes
from laconic.compression.seeded import sign_bits
from laconic.compression.stages import BLOCK, Stream, finite
from laconic.compression.wire import MIN_SCALE, Reader
from laconic.errors import Malformed, NonFinite
from laconic.schema import Vector

N = TypeVar("N", np.int32, np.float64)

LEVELS: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {1: (1,), 2: (3, 10), 3: (3, 9, 16, 26), 4: (3, 9, 15, 22, 29, 37, 48, 63)}
)
"""The positive levels of each number of bits. They stand as the centroids of Lloyd and Max do for a Gaussian
(IEEE Trans. IT 6(1), 1960, table I), and add at most 0.5 % to its squared error."""

SMALLEST, LARGEST = 6, 14
"""Binary logarithms of the smallest and largest block. Signs come 64 to a word; a decoder's piece holds 4."""

MAX_ROUNDS = 2

PEAK = 2.0**96
"""Magnitudes up to this can be encoded: sums with their scale stay inside float32."""

# Where one level's cell ends and the next begins, in standard deviations: midpoints between the centroids.
_EDGES: Mapping[int, tuple[float, ...]] = MappingProxyType(
    {
        1: (),
        2: (0.9816,),
        3: (0.5006, 1.0500, 1.7480),
        4: (0.2582, 0.5224, 0.7996, 1.0993, 1.4371, 1.8435, 2.4008),
    }
)


@dataclass(frozen=True, slots=True)
class Rotation:
    """How blocks are turned: `rounds` times signs, then the Hadamard transform over `2 ** log2` values."""

    log2: int
    rounds: int
    seed: int

    def size(self, count: int) -> int:
        """Coordinates of `count` values: the last block is filled up."""
        return -(-count >> self.log2) << self.log2

    def signs(self, turn: int, start: int, stop: int, size: int) -> NDArray[np.int32]:
        """Of the coordinates `start` to `stop` of `size`, in one of the rounds: 1 or -1."""
        flipped = sign_bits(self.seed, turn * size + start, stop - start)
        return (1 - 2 * flipped.astype(np.int32)).reshape(-1, 1 << self.log2)


@dataclass(frozen=True, slots=True)
class RotatedValues:
    """Rotated codes as they lie in a frame."""

    rotation: Rotation
    bits: int
    scales: Vector
    stream: Stream
    count: int

    @property
    def params(self) -> Mapping[str, object]:
        """Bits a coordinate, values a block, rounds and seed."""
        turn = self.rotation
        return MappingProxyType(
            {
                "bits": self.bits,
                "block": 1 << turn.log2,
                "rounds": turn.rounds,
                "seed": turn.seed,
                "codes": self.stream.coder,
            }
        )

    def blocks(self) -> Iterator[Vector]:
        """Turn the levels back, integers throughout, and scale once. Raises `WireError`."""
        codes, turn, table = self.stream.codes(), self.rotation, _table(self.bits)
        for start in range(0, codes.size, BLOCK):
            stop = min(start + BLOCK, codes.size)
            x = table[codes[start:stop]].reshape(-1, 1 << turn.log2)
            for i in reversed(range(turn.rounds)):
                x = hadamard(x)
                x *= turn.signs(i, start, stop, codes.size)
            scaled = x.astype(np.float32)
            scales = self.scales[start >> turn.log2 : stop >> turn.log2, None]
            scaled *= scales
            if not scales.all():
                scaled += np.float32(0)  # a negative integer times 0 is -0
            yield scaled.ravel()[: self.count - start]


@dataclass(frozen=True, slots=True)
class Rotated:
    """Bits, block, rounds, seed, a scale a block, then one code a coordinate."""

    number: int = 0x14
    name: str = "rotated"

    def write(self, values: Vector, bits: int, level: int, seed: int, *, unbiased: bool) -> bytes:
        """Quantise to `bits` (1 to 4) a coordinate and code; `level` is zstd's.

        `values`: finite float32, shape `(count,)`, not empty, magnitudes up to `PEAK`. With `unbiased` the
        expectation over random seeds of what is decoded is the value (DRIVE, section 4.2; a second round
        makes it so for blocks with few large values as well); else the scale is the one with the least
        squared error.
        """
        rounds = MAX_ROUNDS if unbiased else 1
        turn = Rotation(_block_log2(values.size, bits, rounds), rounds, seed)
        codes, scales = _quantise(values, bits, turn, unbiased)
        head = bytes([self.number, bits, turn.log2, rounds]) + seed.to_bytes(8, "little")
        return head + scales.astype("<f4", copy=False).tobytes() + write_codes(codes, bits, level)

    def read(self, reader: Reader, count: int) -> RotatedValues:
        """Take parameters, scales and codes."""
        bits, log2, rounds = (reader.byte(f"{n} of rotated values") for n in ("bits", "block", "rounds"))
        if bits not in LEVELS:
            raise Malformed("bits of rotated values", value=bits, limit="1 to 4")
        if not SMALLEST <= log2 <= LARGEST or (log2 > SMALLEST and 1 << log2 >= 2 * count):
            limit = f"{SMALLEST} to {LARGEST}, below twice the values"
            raise Malformed("block of rotated values", value=log2, limit=limit)
        if not 1 <= rounds <= MAX_ROUNDS:
            raise Malformed("rounds of rotated values", value=rounds, limit=f"1 to {MAX_ROUNDS}")
        largest = LEVELS[bits][-1] << log2 * rounds
        if largest >= 1 << 24:
            raise Malformed("largest sum of rotated values", value=largest, limit=(1 << 24) - 1)
        turn = Rotation(log2, rounds, int.from_bytes(reader.take(8, "seed of rotated values"), "little"))
        size = turn.size(count)
        raw = reader.take(4 * (size >> log2), "scales of rotated values")
        scales = np.frombuffer(raw, "<f4").astype(np.float32, copy=False)
        _check(scales, largest)
        return RotatedValues(turn, bits, scales, read_codes(reader, size, bits), count)


ROTATED = Rotated()


def hadamard(x: NDArray[N]) -> NDArray[N]:
    """Sylvester's Hadamard matrix times every row of `x`, whose length is a power of two."""
    rows, size = x.shape
    # One row after the other in the innermost axis: additions of neighbours, whatever the step.
    turned = np.ascontiguousarray(x.T)
    step = 1
    while step < size:
        pairs = turned.reshape(size // (2 * step), 2, step * rows)
        low, high = pairs[:, 0], pairs[:, 1]
        difference = low - high
        low += high
        high[...] = difference
        step *= 2
    return np.ascontiguousarray(turned.T)


def _table(bits: int) -> NDArray[np.int32]:
    positive = np.array(LEVELS[bits], np.int32)
    return np.concatenate([-positive[::-1], positive])


def _check(scales: Vector, largest: int) -> None:
    """Every scale is +0, or finite, positive and normal, and no sum times it leaves float32."""
    if not finite(scales):
        raise NonFinite("scale of rotated values", value="NaN or infinity")
    wrong = ((scales < np.float32(MIN_SCALE)) & (scales != 0)) | np.signbit(scales)
    if wrong.any():
        raise Malformed(
            "scale of rotated values", value=float(scales[wrong][0]), limit="0 or 2**-126 and more"
        )
    with np.errstate(over="ignore"):
        if not np.isfinite(scales.max(initial=0.0) * np.float32(largest)):
            raise NonFinite("largest value of a rotated block", value=float(scales.max()))


def _block_log2(count: int, bits: int, rounds: int) -> int:
    """The block with the fewest bytes of codes, filling included, and scales; the larger one of equals."""

    def cost(log2: int) -> int:
        blocks = -(-count >> log2)
        return blocks * (32 + (bits << log2))

    fitting = [
        n
        for n in range(SMALLEST, LARGEST + 1)
        if LEVELS[bits][-1] << n * rounds < 1 << 24 and (n == SMALLEST or 1 << n < 2 * count)
    ]
    return min(reversed(fitting), key=cost)


def _quantise(values: Vector, bits: int, turn: Rotation, unbiased: bool) -> tuple[Codes, Vector]:
    """Codes: uint8, one a coordinate; scales: float32, one a block."""
    size, edges = turn.size(values.size), np.array(_EDGES[bits])
    codes, scales = np.empty(size, np.uint8), np.empty(size >> turn.log2, np.float32)
    table, positive = _table(bits).astype(np.float64), 1 << (bits - 1)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        part = np.zeros(stop - start)
        part[: values.size - start] = values[start:stop]
        y = part.reshape(-1, 1 << turn.log2)
        for i in range(turn.rounds):
            y = hadamard(y * turn.signs(i, start, stop, size)) / math.sqrt(1 << turn.log2)
        energy = np.square(y).sum(axis=1)
        deviation = np.sqrt(energy / y.shape[1])[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            cell = np.searchsorted(edges, np.abs(y) / deviation) if edges.size else np.zeros(y.shape, np.intp)
        chosen = np.where(y < 0, positive - 1 - cell, positive + cell)
        codes[start:stop] = chosen.ravel()
        q = table[chosen]
        match = (y * q).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = energy / match if unbiased else match / np.square(q).sum(axis=1)
        # Turned back as integers, without the factor that makes the transform a rotation.
        scale /= math.sqrt(1 << turn.log2) ** turn.rounds
        scale[~(scale >= MIN_SCALE)] = 0
        scales[start >> turn.log2 : stop >> turn.log2] = scale
    return codes, scales
