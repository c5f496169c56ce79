"""Which values of a sparse update are sent, and on which ladder of magnitudes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.bits import Codes, Mask
from laconic.compression.quantisers.ladder import LISTED, MAX_RUNGS, RUNG, Ladder
from laconic.compression.stages import BLOCK, DOT, blocks
from laconic.compression.wire import MIN_SCALE
from laconic.schema import Vector

_LLOYD_ROUNDS = 12
_TOP_INTEGER = 65535

# Kept values that Lloyd's algorithm looks at: a centre is then right to about a hundredth of its cell.
_FITTED = 1 << 15

# From so many values on a sample saves more time than it costs.
_SAMPLED = 1 << 16
# Values of a sample beyond its threshold, and how many more than are wanted are looked at: six deviations.
_BEYOND = 800
_SLACK = 1.25
_NONE = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Rungs:
    """The kept values of one tensor on a ladder: `negative` and `levels` have shape `(kept,)`."""

    mask: Mask
    negative: NDArray[np.bool_]
    levels: Codes
    ladder: Ladder


def squared(values: Vector) -> float:
    """Sum of squares in float64, a piece at a time: ten million values take 8 ms so, and 41 at once."""
    pieces = (values[a:b].astype(np.float64) for a, b in blocks(values.size, DOT))
    return float(sum(np.dot(p, p) for p in pieces))


def root_mean_square(values: Vector) -> float:
    """Of float32 values of any finite size: float64."""
    return math.sqrt(squared(values) / values.size) if values.size else 0.0


def largest(values: Vector, count: int) -> Mask:
    """Where the `count` (at least 1) largest magnitudes are, without zeros; of equal ones the first.

    `values`: float32, shape `(values,)`; the result is bool of the same shape.
    """
    return largest_of([values], count)[0]


def largest_of(tensors: Sequence[Vector], count: int) -> list[Mask]:
    """Where the `count` (at least 1) largest magnitudes of all tensors together are, as masks of each.

    Of a large vector only what lies beyond a threshold is looked at more than once: the threshold is that of
    a sample, set so low that with all likelihood enough lie beyond it. Where too few do, all are looked at;
    so the result never depends on the sample. 10 million values, one in a hundred kept: 16 ms instead of 74.
    """
    count, total = max(count, 1), sum(t.size for t in tensors)
    threshold = sampled_threshold(tensors, _SLACK * count) if total >= _SAMPLED else 0.0
    found = [beyond(t, threshold) for t in tensors]
    if threshold and sum(f.size for f in found) < count:
        found = [beyond(t, 0.0) for t in tensors]
    magnitudes = np.concatenate([np.abs(t[f]) for t, f in zip(tensors, found, strict=True)] or [_NONE])
    chosen = np.ones(magnitudes.size, np.bool_)
    if count < magnitudes.size:
        least = np.partition(magnitudes, magnitudes.size - count)[magnitudes.size - count]
        chosen = magnitudes > least
        # Without this a vector of equal magnitudes would be kept whole.
        chosen[np.flatnonzero(magnitudes == least)[: count - int(np.count_nonzero(chosen))]] = True
    masks, at = [], 0
    for tensor, positions in zip(tensors, found, strict=True):
        mask = np.zeros(tensor.size, np.bool_)
        mask[positions[chosen[at : at + positions.size]]] = True
        masks.append(mask)
        at += positions.size
    return masks


def sampled_threshold(tensors: Sequence[Vector], count: float) -> float:
    """About the magnitude of the value number `count` in falling order, from a strided sample; 0 for all.

    The sample holds 800 or more values beyond the threshold, so that the number of all values beyond it is
    right to about 4 % (one standard deviation) where the order of values is no rhythm.
    """
    total = sum(t.size for t in tensors)
    if not 0 < count < total / 2:
        return 0.0
    stride = max(1, int(count / _BEYOND))
    # Odd: rows and channels mostly are powers of two long.
    sample = np.abs(np.concatenate([t[:: stride | 1] for t in tensors]))
    rank = sample.size - 1 - int(count / total * sample.size)
    return float(np.partition(sample, rank)[rank])


def beyond(values: Vector, threshold: float) -> NDArray[np.int64]:
    """Rising positions of the magnitudes of `threshold` or more, without zeros."""
    found = [np.empty(0, np.int64)]
    scratch, flags = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.bool_)
    least = max(np.float32(threshold), np.nextafter(np.float32(0), np.float32(1)))
    # In pieces that stay in the processor's cache: memory is read once.
    for start, stop in blocks(values.size):
        magnitudes, flag = scratch[: stop - start], flags[: stop - start]
        np.abs(values[start:stop], out=magnitudes)
        np.greater_equal(magnitudes, least, out=flag)
        positions = np.flatnonzero(flag)
        positions += start
        found.append(positions)
    return np.concatenate(found)


def fitted(values: Vector, mask: Mask, bits: int) -> Rungs | None:
    """Put the kept values on at most `2 ** (bits - 1)` rungs fitted to their magnitudes.

    Up to 4 bits every rung is listed and fitted by Lloyd's algorithm; above, rungs stand at equal distances.
    None if the magnitudes are too small for float32's scale.
    """
    # Positions first: to look values up by a mask of millions takes several times as long.
    sent = values[np.flatnonzero(mask)]
    kept, negative = np.abs(sent).astype(np.float64), sent < 0
    low, high = float(kept.min()), float(kept.max())
    rungs = min(1 << (bits - 1), MAX_RUNGS)
    step = (high - low) / rungs
    if rungs > LISTED and step / RUNG >= MIN_SCALE and low / step < 200:
        levels = np.minimum((kept - low) / step, rungs - 1).astype(np.uint8)
        first = round((low / step + 0.5) * RUNG)
        ladder = Ladder(tuple(first + i * RUNG for i in range(LISTED)), rungs, float(np.float32(step / RUNG)))
        return Rungs(mask, negative, levels, ladder)
    if high / _TOP_INTEGER < MIN_SCALE:
        return None
    scale = float(np.float32(high / _TOP_INTEGER))
    centres = _lloyd(np.sort(kept[:: 1 + kept.size // _FITTED]), min(rungs, LISTED))
    listed = np.unique(np.clip(np.rint(centres / scale), 1, _TOP_INTEGER).astype(np.int64))
    edges = (listed[1:] + listed[:-1]) * (scale / 2)
    levels = np.searchsorted(edges, kept, side="right").astype(np.uint8)
    return Rungs(mask, negative, levels, Ladder(tuple(listed.tolist()), listed.size, scale))


def _lloyd(ordered: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """At most `count` centres with a small squared error to the sorted values, which are not empty."""
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = np.unique(np.linspace(ordered[0], ordered[-1], 2 * count + 1)[1::2])
    for _ in range(_LLOYD_ROUNDS):
        cuts = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2, side="right")
        bounds = np.concatenate([[0], cuts, [ordered.size]])
        sizes = np.diff(bounds)
        centres = np.diff(sums[bounds])[sizes > 0] / sizes[sizes > 0]
    return centres
