"""What the codec is compared with at equal error: STC, top-k 4-bit and dense 8- and 4-bit, with zstd."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from _codec.baselines import stc_decode, stc_encode
from laconic.compression.bits import pack
from laconic.compression.frame import CHECKSUM_BYTES, DIGEST_BYTES, MAGIC
from laconic.schema import Schema, Vector

LEVEL = 19
"""Of zstd: a peer's own best."""

ENVELOPE = len(MAGIC) + 2 + DIGEST_BYTES + CHECKSUM_BYTES
"""Bytes added to each peer here, for what our frames have beyond the update: magic, version, the schema's
digest and a checksum. NNC has its own."""

ESCAPE = 255
_PROBES = 14


class Point(NamedTuple):
    """An update by a peer: bytes, and relative L2 error."""

    bytes: int
    error: float


def relative_error(update: Vector, decoded: Vector) -> float:
    """Norm of the difference over the norm of `update`."""
    wrong = np.subtract(update, decoded, dtype=np.float64)
    return float(np.linalg.norm(wrong) / np.linalg.norm(update.astype(np.float64)))


def dense(update: Vector, schema: Schema, bits: int) -> Point:
    """Every value as a signed integer, its tensor's largest at the last level; zstd over all of them."""
    most = 2 ** (bits - 1) - 1
    levels = np.zeros(update.size, np.int8)
    decoded = np.zeros_like(update)
    for where in schema.slices:
        scale = np.float32(float(np.abs(update[where]).max(initial=0.0)) / most or 1.0)
        levels[where] = np.rint(update[where] / scale)
        decoded[where] = levels[where] * scale
    codes = (levels + most).astype(np.uint8)
    # Where nearly all are zero, zstd does better with a byte a value than with two values a byte.
    size = min(_zstd(levels.tobytes()), _zstd(pack(codes, bits)))
    return Point(ENVELOPE + size + 4 * len(schema.tensors), relative_error(update, decoded))


def stc_at(update: Vector, error: float) -> Point | None:
    """STC with the fewest values whose error is at most `error`; None if no number of them does."""
    magnitudes = np.sort(np.abs(update.astype(np.float64)))[::-1]
    sums = np.cumsum(magnitudes)
    total = float(np.square(magnitudes).sum())
    left = total - np.square(sums) / np.arange(1, update.size + 1)
    # A density of 1 has no Golomb parameter.
    fine = np.flatnonzero(left[:-1] <= error**2 * total)
    if not fine.size:
        return None
    frame = stc_encode(update, float(fine[0] + 1) / update.size)
    return Point(ENVELOPE + len(frame), relative_error(update, stc_decode(frame, update.size)))


def top_k_at(update: Vector, error: float) -> Point | None:
    """Top-k of 4 bits with the fewest values whose error is at most `error`; None if no number of them does.

    A sign and eight magnitudes between the smallest kept and the largest, each sent as its mean.
    """
    order = np.argsort(-np.abs(update), kind="stable")
    low, high = 0, update.size
    if _top_k_error(update, order[:high]) > error:
        return None
    for _ in range(2 * _PROBES):
        if high - low <= 1:
            break
        middle = (low + high) // 2
        if _top_k_error(update, order[:middle]) <= error:
            high = middle
        else:
            low = middle
    kept = np.sort(order[:high])
    codes, _ = _four_bits(update[kept])
    gaps = np.diff(kept, prepend=-1) - 1
    escapes, rest = gaps // ESCAPE, (gaps % ESCAPE).astype(np.uint8)
    stream = np.full(int(escapes.sum()) + gaps.size, ESCAPE, np.uint8)
    stream[np.cumsum(escapes + 1) - 1] = rest
    size = ENVELOPE + 4 + 32 + _zstd(stream.tobytes()) + min(_zstd(pack(codes, 4)), _zstd(codes.tobytes()))
    return Point(size, _top_k_error(update, kept))


def _top_k_error(update: Vector, kept: NDArray[np.int64]) -> float:
    decoded = np.zeros_like(update)
    decoded[kept] = _four_bits(update[kept])[1]
    return relative_error(update, decoded)


def _four_bits(values: Vector) -> tuple[NDArray[np.uint8], Vector]:
    """Codes, and what they stand for; of equal steps and equal ratios, those with the smaller error."""
    magnitudes = np.abs(values).astype(np.float64)
    least, most = float(magnitudes.min()), float(magnitudes.max())
    ways = [(magnitudes - least) / ((most - least) / 7 or 1.0)]
    if 0 < least < most:
        ways.append(np.log(magnitudes / least) / (math.log(most / least) / 7))
    best: tuple[float, NDArray[np.uint8], Vector] | None = None
    for scaled in ways:
        levels = np.clip(np.rint(scaled), 0, 7).astype(np.int64)
        means = np.bincount(levels, magnitudes, 8) / np.maximum(np.bincount(levels, minlength=8), 1)
        error = float(np.square(magnitudes - means[levels]).sum())
        if best is None or error < best[0]:
            codes = (levels + 8 * (values < 0)).astype(np.uint8)
            best = error, codes, (np.sign(values) * means[levels]).astype(np.float32)
    assert best is not None
    return best[1], best[2]


def _zstd(raw: bytes) -> int:
    return min(len(raw), len(zstandard.ZstdCompressor(level=LEVEL).compress(raw)))
