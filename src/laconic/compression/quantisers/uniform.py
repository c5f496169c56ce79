"""Quantiser 0x11 `uniform`: equal steps around zero, 1 to 8 bits a value.

With 2 bits and more a value is `(code - top) * scale`, `top = 2 ** (bits - 1) - 1`; with 1 bit it is
`(2 * code - 1) * scale`. Stochastic rounding makes it unbiased (Alistarh et al., "QSGD", NeurIPS 2017,
section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from laconic.compression.coders import read_codes, write_codes
from laconic.compression.stages import Stream, blocks, finite
from laconic.compression.wire import MIN_SCALE, Reader, float32
from laconic.errors import Malformed, NonFinite
from laconic.schema import Vector

# Shares of the largest magnitude that are tried as the largest code: with few bits and heavy tails it pays
# to clip a few values, most of all under error feedback.
_CLIPS = (1.0, 0.85, 0.7, 0.55, 0.42, 0.32, 0.24, 0.18, 0.13, 0.1)
_SAMPLE = 1 << 14


@dataclass(frozen=True, slots=True)
class UniformValues:
    """Uniform codes as they lie in a frame."""

    stream: Stream
    bits: int
    scale: float
    count: int

    @property
    def params(self) -> Mapping[str, object]:
        """Bits a value, and the step."""
        return MappingProxyType({"bits": self.bits, "scale": self.scale, "codes": self.stream.coder})

    def blocks(self) -> Iterator[Vector]:
        """Integer times float32 scale, rounded once. Raises `Malformed` or `NonFinite`."""
        table = _table(self.bits, self.scale)
        if not finite(table):
            raise NonFinite("largest value of a uniform quantiser", value=self.scale)
        codes = self.stream.codes()
        if codes.size and int(codes.max()) >= table.size:
            raise Malformed("uniform code", value=int(codes.max()), limit=table.size - 1)
        for start, stop in blocks(self.count):
            yield table[codes[start:stop]]


@dataclass(frozen=True, slots=True)
class Uniform:
    """Equal steps around zero."""

    number: int = 0x11
    name: str = "uniform"

    def write(self, values: Vector, bits: int, level: int, rng: np.random.Generator | None) -> bytes:
        """Quantise to `bits` (1 to 8) and code; `level` is zstd's.

        `values`: finite float32, shape `(count,)`, magnitudes up to 2**126. Without `rng`: to the nearest
        code, the scale being the one of ten candidates with the least squared error. With `rng`: at random,
        so that the expectation of what is decoded is the value, the scale covering the largest magnitude.
        """
        top = max((1 << (bits - 1)) - 1, 1)
        scale = _covering(values, top) if rng is not None else _best_scale(values, bits, top)
        codes = _quantise(values, bits, scale, rng)
        return bytes([self.number, bits]) + float32(scale) + write_codes(codes, bits, level)

    def read(self, reader: Reader, count: int) -> UniformValues:
        """Take bits, scale and codes."""
        bits = reader.byte("bits of a uniform quantiser")
        if not 1 <= bits <= 8:
            raise Malformed("bits of a uniform quantiser", value=bits, limit="1 to 8")
        scale = reader.scale("scale of a uniform quantiser")
        return UniformValues(read_codes(reader, count, bits), bits, scale, count)


UNIFORM = Uniform()


def _table(bits: int, scale: float) -> Vector:
    """What each code stands for: float32, shape `(2,)` or `(2 ** bits - 1,)`."""
    top = (1 << (bits - 1)) - 1
    levels = np.array([-1, 1], np.float32) if bits == 1 else np.arange(-top, top + 1, dtype=np.float32)
    with np.errstate(over="ignore"):
        return levels * np.float32(scale)


def _covering(values: Vector, top: int) -> float:
    """The least float32 scale whose largest code is not below the largest magnitude."""
    peak = np.float32(np.abs(values).max(initial=0.0))
    scale = peak / np.float32(top)
    if scale * np.float32(top) < peak:
        scale = np.nextafter(scale, np.float32(np.inf))
    return max(float(scale), MIN_SCALE)


def _best_scale(values: Vector, bits: int, top: int) -> float:
    """The candidate scale with the least squared error on a strided sample."""
    sample = values[:: max(1, values.size // _SAMPLE)].astype(np.float64)
    if bits == 1:
        # The mean magnitude is what a sign is worth (Bernstein et al., "signSGD", ICML 2018).
        return max(float(np.float32(np.abs(sample).mean())), MIN_SCALE)
    full = _covering(values, top)
    best, least = full, np.inf
    for clip in _CLIPS:
        scale = max(float(np.float32(full * clip)), MIN_SCALE)
        error = float(np.square(sample - np.clip(np.rint(sample / scale), -top, top) * scale).sum())
        if error < least:
            best, least = scale, error
    return best


def _quantise(
    values: Vector, bits: int, scale: float, rng: np.random.Generator | None
) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Codes: uint8, shape `(count,)`."""
    top = (1 << (bits - 1)) - 1
    codes = np.empty(values.size, np.uint8)
    for start, stop in blocks(values.size):
        x = values[start:stop].astype(np.float64) / scale
        if bits == 1:
            up = x >= 0 if rng is None else rng.random(x.size) < (1 + x) / 2
            codes[start:stop] = up
        else:
            q = np.rint(x) if rng is None else np.floor(x + rng.random(x.size))
            codes[start:stop] = np.clip(q, -top, top) + top
    return codes
