"""Dense vector to update frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from laconic.compression import rate
from laconic.compression.candidates import Memory
from laconic.compression.decoder import decode
from laconic.compression.frame import wrap
from laconic.compression.plain import EXACT_STAGES, Written, sections
from laconic.compression.rate import Choice
from laconic.compression.selection import energy, squared
from laconic.compression.settings import CodecSettings
from laconic.compression.wire import varint
from laconic.errors import ConfigError, ModelError, NonFinite
from laconic.schema import Schema, Vector


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame, and what was chosen.

    `choices`: how each section is sent. `error`: the norm of what is left out over the norm of the update,
    each tensor's share weighted. `memory`: what speeds up the next update of the same model; giving it back
    is never needed.
    """

    frame: bytes
    choices: tuple[Choice, ...]
    error: float
    memory: Memory = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether the frame decodes to the very bits of the update; False also where that is not known."""
        return all(choice.stages == EXACT_STAGES for choice in self.choices)


def encode(
    update: Vector,
    schema: Schema,
    settings: CodecSettings,
    rng: np.random.Generator,
    *,
    budget_bytes: int | None = None,
    max_error: float | None = None,
    weights: Sequence[float] | None = None,
    memory: Memory | None = None,
    seed: int | None = None,
) -> Encoded:
    """An update to a self-describing frame.

    * `update`: float32, shape `(schema.size,)`, finite.
    * `rng` is drawn from only if the settings round at random; the same arguments and generator state give
      the same frame on one platform.
    * `budget_bytes`: the frame is at most so long, with the least error that this leaves; over
    `settings.budget_bytes`.
    * `max_error`: relative error that is wanted, 0 to 1; the frame is the shortest that keeps to it. Over
      `settings.max_error`. Where both are given the budget rules.
    * `weights`: importance of each tensor's squared error, positive, 1 by default.
    * `memory`: `Encoded.memory` of the update before.
    * `seed`: 0 to 2**64 - 1, from which the kinds "randomk" and "rotated" derive every tensor's own; devices
      with the same seed send the same positions. The first draw of `rng` by default.

    A lossy frame leaves out part of the update: the caller keeps `update - decode(frame)`
    (`laconic.compression.feedback`).

    Raises `ModelError` for another shape or dtype, `NonFinite` for NaN or infinity, `LimitExceeded` for a
    budget that even a frame in which nothing is sent would break, `ConfigError` for a budget or an error
    with settings of a fixed size.
    """
    if update.shape != (schema.size,) or update.dtype != np.float32:
        raise ModelError(
            "shape and dtype of an update",
            value=(update.shape, str(update.dtype)),
            limit=((schema.size,), "float32"),
        )
    # Sums of squares of float32 values stay within float64: one that is not finite has a value that is not.
    energies = _energies(update, schema)
    if not math.isfinite(sum(energies)):
        raise NonFinite("value of an update", value="NaN or infinity", remedy="drop this update")
    budget_bytes = budget_bytes if budget_bytes is not None else settings.budget_bytes or None
    max_error = max_error if max_error is not None else settings.max_error or None
    importance = _importance(weights, schema)
    if settings.kind == "deadzone":
        task = rate.Task(update, schema, settings, importance, memory or {})
        plan = rate.plan(task, budget_bytes=budget_bytes, max_error=max_error)
        return Encoded(
            plan.frame,
            plan.choices,
            _relative(plan.error, energies, importance),
            plan.memory,
        )
    if budget_bytes is not None or max_error is not None:
        raise ConfigError(
            f"codec kind {settings.kind!r} with a budget or a largest error",
            value=(budget_bytes, max_error),
            limit="kind 'deadzone'",
            remedy="use kind 'deadzone', whose step is searched for",
        )
    pool, made = sections(update, schema, settings, rng, seed, energies)
    frame = wrap(schema, pool, [s.part for s in made])
    choices = tuple(_choice(s, schema) for s in made)
    if weights is None:
        return Encoded(frame, choices, _relative(sum(s.error for s in made), energies, importance))
    # A section may hold tensors of several weights.
    left = update - decode(frame, schema, limit_bytes=update.nbytes)
    error = sum(w * squared(left[where]) for w, where in zip(weights, schema.slices, strict=True))
    return Encoded(frame, choices, _relative(error, energies, importance))


def _choice(section: Written, schema: Schema) -> Choice:
    head = len(varint(sum(schema.tensors[i].size for i in section.tensors)))
    return Choice(section.tensors, section.stages, head + len(section.part), section.error)


def _importance(weights: Sequence[float] | None, schema: Schema) -> Sequence[float]:
    if weights is None:
        return (1.0,) * len(schema.tensors)
    if len(weights) != len(schema.tensors):
        raise ModelError("number of tensor weights", value=len(weights), limit=len(schema.tensors))
    wrong = [w for w in weights if not 0 < w < float("inf")]
    if wrong:
        raise ModelError("weight of a tensor's error", value=wrong[0], limit="positive and finite")
    return weights


def _energies(update: Vector, schema: Schema) -> Sequence[float]:
    """Each tensor's sum of squares; NaN or infinite where a value is."""
    return [energy(update[where]) for where in schema.slices]


def _relative(error: float, energies: Sequence[float], importance: Sequence[float]) -> float:
    total = sum(w * energy for w, energy in zip(importance, energies, strict=True))
    return float(np.sqrt(error / total)) if total else 0.0
