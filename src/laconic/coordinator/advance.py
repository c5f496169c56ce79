"""From the coordinator's step to the next version: compressed delta, residual, evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from laconic.compression import PRESETS, CodecSettings, carry, commit, decode, encode
from laconic.coordinator.aggregation.echo import NOTHING_SAID, FleetEcho
from laconic.coordinator.aggregation.optimizers import NO_MOMENTS, Moments
from laconic.protocol.identity import weights_hash
from laconic.schema import Schema, Vector


@dataclass(frozen=True, slots=True)
class Score:
    """How good a model is on held-out data."""

    loss: float
    accuracy: float | None


Evaluate = Callable[[Vector], Score | None]


@dataclass(frozen=True, slots=True)
class Version:
    """A computed version, ready to be saved and published."""

    weights: Vector
    """What every device will hold, bit for bit."""
    residual: Vector
    """What the delta left out; it goes into the next one."""
    digest: bytes
    delta: bytes | None
    full: bytes | None
    """The whole model, where it is to be kept so."""
    score: Score | None
    moments: Moments = NO_MOMENTS
    """What the server optimizer remembers for the step after this version."""
    echo: FleetEcho = NOTHING_SAID
    """What that step adds to its round's mean."""


def first(weights: Vector, schema: Schema, evaluate: Evaluate) -> Version:
    """The version that a bundle brings along."""
    return Version(
        weights=weights,
        residual=np.zeros(schema.size, np.float32),
        digest=weights_hash(weights, schema),
        delta=None,
        full=full_frame(weights, schema),
        score=evaluate(weights),
    )


def advance(
    weights: Vector,
    residual: Vector,
    step: Vector,
    schema: Schema,
    *,
    codec: CodecSettings,
    seed: int,
    full: bool,
    evaluate: Evaluate,
) -> Version:
    """Step by the server optimizer's `step` and say it in few bytes.

    The new weights are the old ones plus what the delta's frame decodes to: the sum every device makes. What
    the frame left out stays in the residual (error feedback, Seide et al., Interspeech 2014, section 3).

    Raises `NonFinite` when the step is not finite.
    """
    target = carry(residual, step)
    delta = encode(target, schema, codec, np.random.default_rng(seed)).frame
    said = decode(delta, schema, limit_bytes=4 * schema.size)
    new = weights + said
    return Version(
        weights=new,
        residual=commit(target, said),
        digest=weights_hash(new, schema),
        delta=delta,
        full=full_frame(new, schema, codec) if full else None,
        score=evaluate(new),
    )


def full_frame(weights: Vector, schema: Schema, codec: CodecSettings | None = None) -> bytes:
    """A whole model as an update frame on zeros: bit for bit, for those who hold nothing to build on.

    Compressed without loss, unless the deltas, by `codec`, are float32 as they are: then it is, too.
    """
    plain = codec == PRESETS["exact"]
    return encode(weights, schema, PRESETS["exact" if plain else "lossless"], np.random.default_rng(0)).frame
