"""Quantiser 0x12 `ladder`: a sign and one of up to 255 rising magnitudes; never zero.

The magnitudes are integers times one scale. The first rungs (at most 8) are listed; above them the integers
rise by 256 a rung. A listed rung can lie at the centroid of the values that it stands for, which is where
the squared error is least (Lloyd, "Least squares quantization in PCM", IEEE Trans. IT 28(2), 1982).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from laconic.compression import native
from laconic.compression.bits import Codes
from laconic.compression.coders import read_codes, write_codes
from laconic.compression.stages import BLOCK, Stream, blocks
from laconic.compression.wire import Reader, float32
from laconic.errors import Malformed, NonFinite
from laconic.schema import Vector

LISTED = 8
"""Rungs whose magnitudes are listed."""

MAX_RUNGS = 255

RUNG = 256
"""How much the integer magnitude rises from one rung to the next, above the listed ones."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The magnitudes: `listed` integers (1 to 65535, rising), `rungs` in all, times `scale` (float32)."""

    listed: tuple[int, ...]
    rungs: int
    scale: float

    def magnitudes(self) -> Vector:
        """Every rung's magnitude: float32, shape `(rungs,)`, integer times scale rounded once."""
        # At most 65535 + 247 * 256 < 2**24: exact in float32 before the one multiplication.
        integers = np.array(self.listed, np.float32)
        if self.rungs > len(self.listed):
            above = np.arange(1, self.rungs - len(self.listed) + 1) * RUNG + self.listed[-1]
            integers = np.concatenate([integers, above.astype(np.float32)])
        with np.errstate(over="ignore"):
            return integers * np.float32(self.scale)


@dataclass(frozen=True, slots=True)
class LadderValues:
    """Signs and rungs as they lie in a frame."""

    ladder: Ladder
    signs: Stream
    levels: Stream | None
    count: int

    @property
    def params(self) -> Mapping[str, object]:
        """The number of rungs, and the lowest and highest magnitude."""
        m = self.ladder.magnitudes()
        return MappingProxyType(
            {
                "rungs": self.ladder.rungs,
                "lowest": float(m[0]),
                "highest": float(m[-1]),
                "signs": self.signs.coder,
                "levels": self.levels.coder if self.levels is not None else "",
            }
        )

    def blocks(self) -> Iterator[Vector]:
        """Magnitudes with their signs. Raises `Malformed` or `NonFinite`."""
        magnitudes = self.ladder.magnitudes()
        # They rise.
        if not math.isfinite(magnitudes[-1]):
            raise NonFinite("highest magnitude of a ladder", value=self.ladder.scale)
        signs = self.signs.codes()
        levels = self.levels.codes() if self.levels is not None else np.zeros(self.count, np.uint8)
        # One look-up gives magnitude and sign: six times as fast as a negation of some.
        either = np.concatenate([magnitudes, -magnitudes])
        if 0 < self.count <= BLOCK and native.ready_for_values(self.count):
            from laconic.compression.native.sparse import laddered

            values, highest = laddered(signs, levels, either)
            self._check(highest)
            yield values
            return
        if levels.size:
            self._check(int(levels.max()))
        for start, stop in blocks(self.count):
            places = signs[start:stop] * np.intp(self.ladder.rungs)
            places += levels[start:stop]
            yield either.take(places)

    def _check(self, highest: int) -> None:
        if highest >= self.ladder.rungs:
            raise Malformed("rung", value=highest, limit=self.ladder.rungs - 1)


@dataclass(frozen=True, slots=True)
class LadderQuantiser:
    """A sign stream (1 where negative), then a stream of rungs counted from zero."""

    number: int = 0x12
    name: str = "ladder"

    def write(self, negative: NDArray[np.bool_], levels: Codes, ladder: Ladder, level: int) -> bytes:
        """Code signs and rungs; `level` is zstd's. A ladder of one rung has no rung stream."""
        out = bytes([self.number]) + float32(ladder.scale) + bytes([ladder.rungs])
        out += b"".join(m.to_bytes(2, "little") for m in ladder.listed)
        out += write_codes(negative.view(np.uint8), 1, level)
        width = (ladder.rungs - 1).bit_length()
        return out + write_codes(levels, width, level) if width else out

    def read(self, reader: Reader, count: int) -> LadderValues:
        """Take scale, rungs, signs and levels."""
        scale = reader.scale("scale of a ladder")
        rungs = reader.byte("rungs of a ladder")
        if not rungs:
            raise Malformed("rungs of a ladder", value=0, limit="1 to 255")
        raw = reader.take(2 * min(rungs, LISTED), "listed rungs")
        listed = struct.unpack(f"<{len(raw) // 2}H", raw)
        if listed[0] < 1 or any(a >= b for a, b in pairwise(listed)):
            raise Malformed("listed rungs", value=listed, limit="positive and rising")
        signs = read_codes(reader, count, 1)
        width = (rungs - 1).bit_length()
        levels = read_codes(reader, count, width) if width else None
        return LadderValues(Ladder(listed, rungs, scale), signs, levels, count)


LADDER = LadderQuantiser()
