"""Magnitudes of a grid: multiples of a step, the lowest ones moved to the centres of what they stand for."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression.wire import MIN_SCALE, Reader
from laconic.errors import Malformed, NonFinite
from laconic.schema import Vector

Levels: TypeAlias = NDArray[np.int16]
"""Signed levels, -255 to 255: which multiple of the step stands for a value."""

MAX_RUNGS = 255

STEP = 128
"""Parts of a step: the integer magnitude rises by so many from one level to the next."""

LISTED = 4
"""Levels with a centre of their own; the last one's offset holds for all above it as well."""

_NEUTRAL = STEP // 2

_BYTE = 1.2
"""Squared steps that a byte is worth where values are quantised at all: 0.15 a bit."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Level `q` (1 to `rungs`) stands for `(128 q - 64 + offset) * scale`.

    `scale` is a float32 of 8 significant bits, which two bytes hold. `offsets` (0 to 255, at most 4) are the
    lowest levels', the fourth that of all above as well; a level without one has 64, which is the multiple
    itself.
    """

    scale: float
    rungs: int
    offsets: tuple[int, ...]

    def magnitudes(self) -> Vector:
        """By level from 1 on: float32, shape `(rungs,)`, integer times scale rounded once."""
        listed = np.full(LISTED, _NEUTRAL)
        listed[: len(self.offsets)] = self.offsets
        offsets = listed[np.minimum(np.arange(self.rungs), LISTED - 1)]
        integers = np.arange(1, self.rungs + 1) * STEP - _NEUTRAL + offsets
        # At most 255 * 128 + 191 < 2**24: exact in float32 before the one multiplication.
        with np.errstate(over="ignore"):
            magnitudes: Vector = integers.astype(np.float32) * np.float32(self.scale)
        return magnitudes

    def values(self, levels: Levels) -> Vector:
        """What signed levels, none of them 0, stand for: float32 of the same shape."""
        values: Vector = self.magnitudes()[np.abs(levels) - 1]
        np.negative(values, out=values, where=levels < 0)
        return values

    def to_bytes(self) -> bytes:
        """Scale, rungs if there are several, offsets; not how many offsets there are."""
        rungs = (self.rungs,) if self.rungs > 1 else ()
        return struct.pack("<f", self.scale)[2:] + bytes([*rungs, *self.offsets])


def read_steps(reader: Reader, listed: int, *, several: bool) -> Steps:
    """The inverse of `to_bytes`, with `listed` offsets, and `several` rungs or one.

    Raises `Malformed`, or `NonFinite` if the highest magnitude would not be finite.
    """
    scale = Reader(memoryview(b"\0\0" + bytes(reader.take(2, "scale of a grid")))).scale("scale of a grid")
    rungs = reader.byte("rungs of a grid") if several else 1
    if several and rungs < 2:
        raise Malformed("rungs of a grid", value=rungs, limit="2 to 255")
    if listed > min(rungs, LISTED):
        raise Malformed("offsets of a grid", value=listed, limit=min(rungs, LISTED))
    steps = Steps(scale, rungs, tuple(reader.take(listed, "offsets of a grid")))
    if not np.isfinite(steps.magnitudes()).all():
        raise NonFinite("highest magnitude of a grid", value=scale)
    return steps


def grid_step(step: float) -> float | None:
    """The nearest step that a grid can have; None if it is too small or too large for float32."""
    if not MIN_SCALE * STEP <= step < 2.0**112:
        return None
    # Rounding half up in the upper 16 bits of float32: at most 1 / 512 off.
    (bits,) = struct.unpack("<I", struct.pack("<f", step / STEP))
    (scale,) = struct.unpack("<f", struct.pack("<I", bits + 0x8000 & 0xFFFF0000))
    return float(scale) * STEP


def fitted(step: float, magnitudes: Vector, levels: NDArray[np.signedinteger]) -> Steps:
    """The steps whose lowest levels lie at the mean of their values, where that earns its byte.

    `step`: of `grid_step`; `magnitudes`: in steps, shape `(kept,)`; `levels`: 1 to 255, of the same shape,
    not empty. Source: Lloyd, "Least squares quantization in PCM", IEEE Trans. IT 28(2), 1982.
    """
    rungs = int(levels.max())
    listed = min(rungs, LISTED)
    which = np.minimum(levels, LISTED)
    counts = np.bincount(which, minlength=listed + 1)[1 : listed + 1]
    excess = np.bincount(which, weights=magnitudes - levels, minlength=listed + 1)[1 : listed + 1]
    mean = excess / np.maximum(counts, 1)
    earned = np.flatnonzero(counts * np.square(mean) > _BYTE)
    offsets = np.clip(np.rint(mean * STEP) + _NEUTRAL, 0, 255)[: int(earned.max(initial=-1)) + 1]
    return Steps(step / STEP, rungs, tuple(offsets.astype(int).tolist()))
