"""Error feedback: what a lossy frame left out is carried into the next one.

Seide et al., "1-Bit Stochastic Gradient Descent", Interspeech 2014, section 3.3; Karimireddy et al., "Error
feedback fixes SignSGD", ICML 2019, algorithm 2. The life cycle on a device, all state being explicit:

```
residual = residual.carried(change, version, ...)    save it with its version
frame    = encode(residual.values, ...)              send it: it is pending now
committed:                  residual = residual.committed(decode(frame, ...))
returned (lost, rejected) or gated:    nothing to do, the residual holds all of it
missed rounds:              the next `carried` shortens what is old, see `FeedbackSettings`
```

Until the coordinator has said `committed`, everything counts as not sent: a crash, a lost frame or a refused
one costs time, never information. At every moment `committed frames + residual = all changes`, up to
float32's rounding and whatever age and `cap` have taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from laconic.compression.selection import root_mean_square
from laconic.compression.stages import finite
from laconic.errors import ConfigError, ModelError, NonFinite
from laconic.schema import Vector


@dataclass(frozen=True, slots=True)
class FeedbackSettings:
    """How much of an old residual is kept.

    * `cap`: its norm in lengths of the usual change at most, 0 or more; see `cap`.
    * `decay`: factor for each model version that the device missed, 0 to 1: what it has left to say was said
      of a model that others have moved since. Rounds in which it trained do not count, silent ones included.
      On digits, where devices were there for 2 rounds in 8, or 1 in 21, with and without 90 % of one class
      (two seeds each), 0.97 came within .3 points of the best factor in three cases of four and 1.3 below it
      in the fourth; 1 was up to 2.9 points below the best, 0.9 up to 1.3, 0 from .6 to 2.3.
    * `stale_after`: a residual that missed more versions than this is dropped, 0 or more; after 50, a factor
      of 0.97 has left a fifth of it.

    Raises `ConfigError` for a value out of range.
    """

    cap: float = 30.0
    decay: float = 0.97
    stale_after: int = 50

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cap) and self.cap >= 0):
            raise ConfigError("feedback cap", value=self.cap, limit="finite, 0 or more")
        if not 0 <= self.decay <= 1:
            raise ConfigError("feedback decay", value=self.decay, limit="0 to 1")
        if self.stale_after < 0:
            raise ConfigError("feedback stale_after", value=self.stale_after, limit="0 or more")


@dataclass(frozen=True, slots=True)
class Residual:
    """What the coordinator does not have yet: `values`, float32, shape `(size,)`; nothing changes in place.

    `version`: of the model from which the last change in it was made; None before the first.
    """

    values: Vector
    version: int | None = None
    known_norm: float | None = None
    """Of `values`, where it has been computed."""

    @property
    def norm(self) -> float:
        """Of `values`: `norm`."""
        return norm(self.values) if self.known_norm is None else self.known_norm

    def missed(self, version: int) -> int:
        """How many versions between its own and `version` the device did not train from.

        A version below its own is one of a coordinator that has gone back: as far off as it is behind.
        """
        if self.version is None:
            return 0
        ahead = version - self.version
        return max(ahead - 1, 0) if ahead >= 0 else -ahead

    def aged(self, version: int, settings: FeedbackSettings) -> Residual:
        """As it goes into training from `version`, by the rule of `FeedbackSettings`.

        Only while nothing is pending: a commit subtracts the frame as it was sent.
        """
        missed = self.missed(version)
        if missed == 0:
            return self
        keep = 0.0 if missed > settings.stale_after else settings.decay**missed
        return Residual(self.values * np.float32(keep), self.version)

    def carried(
        self, change: Vector, version: int, *, usual: float, settings: FeedbackSettings, reuse: bool = False
    ) -> Residual:
        """With a change made from `version`: aged, added, capped at `settings.cap` times `usual`, the norm of
        a change as this device makes them, or of this one if that is longer.

        `reuse`: the result may have the memory of `change`, which is equal to the sum then.

        Raises `ModelError` and `NonFinite` as `carry` does; the residual then stays as it was.
        """
        old = self.aged(version, settings).values
        alone = old is no_residual(old.size)
        # New memory costs more than the sum. Zero is added, too: it makes -0 of a change +0.
        target = carry(old, change, out=change if reuse and alone else None)
        length, reference = norm(target), usual
        # Otherwise it is within the bound whatever the change's own norm is.
        if not length <= settings.cap * usual:
            reference = max(usual, length if alone else norm(change))
        values = _capped(target, length, reference, settings.cap)
        return Residual(values, version, length if values is target else None)

    def committed(self, sent: Vector) -> Residual:
        """Without `sent`, the decoded frame that the coordinator has committed: see `commit`."""
        if sent is self.values:
            return Residual(no_residual(sent.size), self.version)
        left = commit(self.values, sent)
        return Residual(left if left.any() else no_residual(left.size), self.version)


@lru_cache(8)
def no_residual(size: int) -> Vector:
    """The residual of a device that has nothing to carry: zeros, float32, shape `(size,)`, read-only.

    Start again from here when the schema or the lineage of the model changes. It is the same array for all
    who ask: where thousands of devices live in one process, those who carry nothing take no memory for it.
    """
    nothing = np.zeros(size, np.float32)
    nothing.flags.writeable = False
    return nothing


def norm(vector: Vector) -> float:
    """Euclidean norm, summed in float64; finite for every finite vector."""
    return root_mean_square(vector) * math.sqrt(vector.size)


def carry(residual: Vector, change: Vector, *, out: Vector | None = None) -> Vector:
    """What is to be sent: residual plus this round's change; float32, of the same shape: a new vector, or
    `out`.

    Raises `ModelError` for different shapes, `NonFinite` when the sum is not finite: the caller then drops
    the change and keeps the residual as it was.
    """
    _same_shape(residual, change)
    with np.errstate(over="ignore", invalid="ignore"):
        target = np.add(residual, change, dtype=np.float32, out=out)
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
    return _capped(_finite(residual, "residual"), norm(residual), reference, ratio)


def _capped(residual: Vector, length: float, reference: float, ratio: float) -> Vector:
    """`cap`, of finite values whose norm is `length`."""
    if not (math.isfinite(reference) and math.isfinite(ratio)):
        raise NonFinite("bound of a residual's norm", value=(reference, ratio))
    if reference < 0 or ratio < 0:
        raise ModelError("bound of a residual's norm", value=(reference, ratio), limit="not negative")
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
