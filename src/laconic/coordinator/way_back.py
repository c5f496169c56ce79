"""From a version back to the weights of an older one, bit for bit, in frames that devices add up.

A device makes a version by adding a frame to the weights that it holds, in float32. One frame does not
always lead to given weights: where a weight was small and has grown, the difference has no bits left for the
last digits of the small one, and the sum is rounded to another. A second frame adds what the first has left,
which is small enough to be exact. So the way back is one frame or two; or the whole model, where that is
shorter, or where two frames do not lead there either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from laconic.compression import PRESETS, decode, encode
from laconic.coordinator.advance import Score, Version, full_frame
from laconic.protocol.identity import weights_hash
from laconic.schema import Schema, Vector

_MOST_FRAMES = 2


@dataclass(frozen=True, slots=True)
class WayBack:
    """Versions that lead to an old one's weights, computed and ready to be saved."""

    target: int
    """The version whose weights the last of `steps` has."""
    why: str
    steps: tuple[Version, ...]


def way_back(
    current: Vector, target: Vector, schema: Schema, *, version: int, why: str, score: Score | None
) -> WayBack:
    """The way from `current` to the weights `target` of `version`; only the last step has a score."""
    full = full_frame(target, schema)
    steps: list[Version] = []
    held = current
    for frame in _frames(current, target, schema):
        held = held + decode(frame, schema, limit_bytes=4 * schema.size)
        steps.append(_step(held, schema, frame, None, None))
    if not steps or held.tobytes() != target.tobytes() or _size(steps) >= len(full):
        return WayBack(version, why, (_step(target, schema, None, full, score),))
    return WayBack(version, why, (*steps[:-1], _step(target, schema, steps[-1].delta, full, score)))


def _frames(current: Vector, target: Vector, schema: Schema) -> list[bytes]:
    frames, held = [], current
    for _ in range(_MOST_FRAMES):
        if held.tobytes() == target.tobytes():
            break
        with np.errstate(over="ignore"):
            left = (target.astype(np.float64) - held).astype(np.float32)
        if not np.isfinite(left).all():
            return []
        frame = encode(left, schema, PRESETS["lossless"], np.random.default_rng(0)).frame
        held = held + decode(frame, schema, limit_bytes=4 * schema.size)
        frames.append(frame)
    return frames


def _size(steps: list[Version]) -> int:
    return sum(len(step.delta or b"") for step in steps)


def _step(
    weights: Vector, schema: Schema, delta: bytes | None, full: bytes | None, score: Score | None
) -> Version:
    return Version(
        weights=weights,
        residual=np.zeros(schema.size, np.float32),
        digest=weights_hash(weights, schema),
        delta=delta,
        full=full,
        score=score,
    )
