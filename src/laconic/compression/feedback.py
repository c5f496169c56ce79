"""Error feedback: what a lossy frame left out is carried into the next one.

Seide et al., "1-Bit Stochastic Gradient Descent", Interspeech 2014, section 3.3; Karimireddy et al., "Error
feedback fixes SignSGD", ICML 2019, algorithm 2. The life cycle on a device, all state being explicit:

```
target   = carry(residual, change)          the residual is now `target`: save it
frame    = encode(target, ...)              send it
committed:    residual = commit(target, decode(frame, ...))
lost, rejected or gated:                    nothing to do, the residual stays `target`
```

Until the coordinator has said `committed`, everything counts as not sent: a crash, a lost frame or a refused
one costs time, never information. At every moment `committed frames + residual = all changes`, up to
float32's rounding and whatever `cap` has cut off.
"""

from __future__ import annotations

import math

import numpy as np

from laconic.compression.selection import root_mean_square
from laconic.compression.stages import finite
from laconic.errors import ModelError, NonFinite
from laconic.schema import Vector


def no_residual(size: int) -> Vector:
    """The residual of a device that has nothing to carry: zeros, float32, shape `(size,)`.

    Start again from here when the schema or the lineage of the model changes.
    """
    return np.zeros(size, np.float32)


def norm(vector: Vector) -> float:
    """Euclidean norm, summed in float64; finite for every finite vector."""
    return root_mean_square(vector) * math.sqrt(vector.size)


def carry(residual: Vector, change: Vector) -> Vector:
    """What is to be sent: residual plus this round's change; float32, a new vector of the same shape.

    Raises `ModelError` for different shapes, `NonFinite` when the sum is not finite: the caller then drops
    the change and keeps the residual as it was.
    """
    _same_shape(residual, change)
    with np.errstate(over="ignore", invalid="ignore"):
        target = np.add(residual, change, dtype=np.float32)
    return _finite(target, "sum of residual and change")


def commit(target: Vector, sent: Vector) -> Vector:
    """What remains once the coordinator has committed `sent`; float32, a new vector of the same shape.

    `sent` is the *decoded* frame, as the coordinator sees it. If changes were carried while the frame was on
    its way, `target` is the residual of now, not of then: the difference is the same.

    Raises `ModelError` for different shapes, `NonFinite` when the difference is not finite.
    """
    _same_shape(target, sent)
    with np.errstate(over="ignore", invalid="ignore"):
        residual = np.subtract(target, sent, dtype=np.float32)
    return _finite(residual, "difference of target and sent update")


def cap(residual: Vector, reference: float, ratio: float) -> Vector:
    """The residual, scaled down so that its norm is at most `ratio * reference`.

    The reference is the norm of the last local change. A residual of many times that size is old: its
    direction was right for a model long replaced, and it would drown what the device learns now. The rule
    keeps the direction and shortens the length. Left alone, a residual settled at 1 to 2 times the change
    with preset "small", which a ratio of 3 leaves alone, and at 7 to 9 times with "tiny", where a ratio of 3
    cost 0.1 point of accuracy in each of two runs. Returns `residual` itself when it is within the bound.

    Raises `NonFinite` for a residual, reference or ratio that is not finite, `ModelError` for a negative one.
    """
    if not (math.isfinite(reference) and math.isfinite(ratio)):
        raise NonFinite("bound of a residual's norm", value=(reference, ratio))
    if reference < 0 or ratio < 0:
        raise ModelError("bound of a residual's norm", value=(reference, ratio), limit="not negative")
    length = norm(_finite(residual, "residual"))
    bound = ratio * reference
    if length <= bound:
        return residual
    # Rounding of the product may lift the norm above the bound by parts in ten million, no more.
    return (residual * (bound / length)).astype(np.float32)


def _same_shape(a: Vector, b: Vector) -> None:
    if a.shape != b.shape:
        raise ModelError(
            "shape of an update against its residual",
            value=b.shape,
            limit=a.shape,
            remedy="start from no_residual() when the schema changes",
        )


def _finite(vector: Vector, thing: str) -> Vector:
    if not finite(vector):
        raise NonFinite(thing, value="NaN or infinity", remedy="drop the change, keep the residual")
    return vector
