"""One task's work, away from the event loop: train, add the residual, pass the gate, encode."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from laconic.compression import CodecSettings, cap, carry, encode, norm
from laconic.compression.gate import GateSettings, GateState, decide
from laconic.edge_sdk.learner import Learner
from laconic.errors import ConfigError, Malformed
from laconic.protocol.messages import Offer
from laconic.schema import Vector

RESIDUAL_RATIO = 30.0
"""Longest residual, in lengths of what this device is used to: see `laconic.compression.feedback.cap`."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that the work depends on."""

    offer: Offer
    weights: Vector
    residual: Vector
    gate_state: GateState
    codec: CodecSettings
    gate: GateSettings
    seed: int
    private: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    residual: Vector
    """The change plus the old residual: all that the coordinator does not have yet."""
    frame: bytes | None
    """The encoded update; None when the gate is shut."""
    gate_state: GateState
    samples: int
    norm: float
    threshold: float
    loss_before: float | None
    loss_after: float | None
    private: bytes = b""
    """What the learner keeps for the next time: it never leaves the device."""


def perform(assignment: Assignment, learner: Learner) -> Outcome:
    """Do the work. The same assignment on the same data gives the same outcome, also after a restart.

    Raises `NonFinite` when training has diverged: the residual then stays as it was.
    """
    offer = assignment.offer
    trained = learner.train(assignment.weights, offer.training, assignment.seed, assignment.private)
    change = trained.weights - assignment.weights
    # Where nothing new is learnt the change fades; a cap that faded too would take what has not been sent.
    usual = max(norm(change), assignment.gate_state.running_norm or 0.0)
    residual = cap(carry(assignment.residual, change), usual, RESIDUAL_RATIO)
    decision = decide(assignment.gate, assignment.gate_state, norm(residual), norm(assignment.weights))
    frame = None
    if decision.send:
        rng = np.random.default_rng(assignment.seed)
        frame = encode(residual, learner.schema, assignment.codec, rng).frame
    return Outcome(
        residual=residual,
        frame=frame,
        gate_state=decision.state,
        samples=trained.samples,
        norm=decision.norm,
        threshold=decision.threshold,
        loss_before=trained.loss_before,
        loss_after=trained.loss_after,
        private=trained.private,
    )


def codec_of(offer: Offer) -> CodecSettings:
    """The encoder's settings that an offer asks for. Raises `Malformed` for settings that do not exist."""
    if not offer.codec:
        return CodecSettings()
    try:
        return CodecSettings.from_builtins(msgspec.msgpack.decode(offer.codec))
    except (msgspec.DecodeError, ConfigError, TypeError, ValueError) as e:
        raise Malformed(f"codec of an offer ({e})", value=offer.codec[:32]) from e


def gate_of(offer: Offer) -> GateSettings:
    """The gate that an offer asks for. Raises `Malformed` for one that does not exist."""
    gate = offer.gate
    try:
        return GateSettings(gate.mode, gate.threshold, gate.force_after)  # type: ignore[arg-type]
    except ConfigError as e:
        raise Malformed(f"gate of an offer ({e})", value=gate.mode) from e
