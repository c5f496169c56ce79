"""One task's work, away from the event loop: train, add the residual, pass the gate, encode."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field

import msgspec
import numpy as np

from laconic.compression import CodecSettings, Encoded, encode, norm
from laconic.compression.echo import NO_ECHO, Echo, EchoSettings
from laconic.compression.feedback import FeedbackSettings, Residual
from laconic.compression.gate import GateSettings, GateState, decide, sent
from laconic.edge_sdk.learner import ChangingLearner, Interrupted, Learner, Measured, Trained
from laconic.errors import ConfigError, LimitExceeded, Malformed
from laconic.node import Compute
from laconic.protocol.messages import Folded, Offer, measured
from laconic.schema import Schema, Vector


@dataclass(frozen=True, slots=True)
class Begun:
    """How far a task has come: nowhere, unless there is a checkpoint of it."""

    checkpoint: bytes = b""
    base: Measured | None = None
    """What was measured of the model before."""
    seconds: float = 0.0
    """Of work so far."""


@dataclass(frozen=True, slots=True)
class Halted:
    """Work that was told to yield."""

    checkpoint: bytes
    base: Measured | None


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that the work depends on."""

    offer: Offer
    weights: Vector
    residual: Residual
    gate_state: GateState
    codec: CodecSettings
    gate: GateSettings
    seed: int
    private: bytes = b""
    feedback: FeedbackSettings = field(default_factory=FeedbackSettings)
    echo: Echo = NO_ECHO
    now: float | None = None
    """Seconds; a gate that is steered to bytes a day measures its rounds by it."""
    room_bytes: int | None = None
    """The longest update that its device can afford, None for any: a longer one is made shorter, if the codec
    can, and else refused before it is sent."""
    begun: Begun = Begun()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    residual: Residual
    """The change plus the old residual: all that the coordinator does not have yet."""
    echo: Echo
    """What is added on this device's behalf after this round."""
    frame: bytes | None
    """The encoded update; None when the gate is shut."""
    gate_state: GateState
    samples: int
    norm: float
    threshold: float
    loss_before: float | None
    loss_after: float | None
    rate: float
    """Share of the last rounds in which the gate was open."""
    target: float
    """What the gate aims at; 0 for one that is not steered."""
    private: bytes = b""
    """What the learner keeps for the next time: it never leaves the device."""
    accuracy_before: float | None = None
    exact: bool = False
    """The frame is known to say all of the residual, bit for bit."""
    sha256: bytes = b""
    """Of the frame: to hash a large one would hold up whoever handles events."""


def job(assignment: Assignment, learner: Learner) -> Compute:
    """The work as a driver runs it: it gives an `Outcome`, or `Measured` for an offer to measure only; or
    `Halted` where it was told to yield."""
    if assignment.now is not None and isinstance(learner, ChangingLearner):
        learner = learner.at(assignment.now)
    return Compute("train", Work(assignment, learner), samples=touched(assignment.offer, learner.samples))


@dataclass(frozen=True, slots=True)
class Work:
    """The work as a call, for drivers that want to know what they call: its parts may be done elsewhere."""

    assignment: Assignment
    learner: Learner

    def __call__(self) -> Outcome | Measured | Halted:
        run = perform if self.assignment.offer.train else measure
        return run(self.assignment, self.learner)


@dataclass(frozen=True, slots=True)
class Learnt:
    """Work of which the training is done."""

    trained: Trained
    base: Measured | None
    schema: Schema


def seed_of(device: str, task: str) -> int:
    """The seed of a device's work on a task: the same in every life."""
    return int.from_bytes(hashlib.sha256(f"{device}/{task}".encode()).digest()[:8], "big")


def perform(assignment: Assignment, learner: Learner) -> Outcome | Halted:
    """Do the work. The same assignment on the same data gives the same outcome, also after a restart.

    Raises `NonFinite` when training has diverged: residual and echo then stay as they were.
    """
    learnt = learn(assignment, learner)
    return learnt if isinstance(learnt, Halted) else conclude(assignment, learnt)


def learn(assignment: Assignment, learner: Learner) -> Learnt | Halted:
    """The work's first half: measure, if the offer asks for it, and train."""
    offer, begun = assignment.offer, assignment.begun
    base = measure(assignment, learner) if offer.evaluate and begun.base is None else begun.base
    if isinstance(base, Halted):
        return base
    trained = learner.train(
        assignment.weights, offer.training, assignment.seed, assignment.private, begun.checkpoint
    )
    if isinstance(trained, Interrupted):
        return Halted(trained.checkpoint, base)
    return Learnt(trained, base, learner.schema)


def conclude(assignment: Assignment, learnt: Learnt) -> Outcome:
    """Its second half: add the residual, pass the gate, encode. It depends on nothing but its arguments.

    Raises `NonFinite` as `perform` does.
    """
    offer, trained, base, schema = assignment.offer, learnt.trained, learnt.base, learnt.schema
    change = trained.weights - assignment.weights
    # Where nothing new is learnt the change fades; a cap that faded too would take what has not been sent.
    usual = assignment.gate_state.running_norm or 0.0
    kept, echo = caught_up(assignment.residual, assignment.echo, offer)
    residual = kept.carried(change, offer.version, usual=usual, settings=assignment.feedback, reuse=True)
    residual = _sparing(residual, kept, change, schema.controls)
    decision = decide(
        assignment.gate,
        assignment.gate_state,
        residual.norm,
        norm(assignment.weights) if assignment.gate.mode == "model" else 0.0,
        loss=trained.loss_before,
        now=assignment.now,
    )
    frame, state, exact = None, decision.state, False
    if decision.send:
        encoded = _encoded(residual.values, schema, assignment)
        frame, exact = encoded.frame, encoded.exact
        state = sent(state, len(frame))
    return Outcome(
        residual=residual,
        echo=echo,
        frame=frame,
        gate_state=state,
        samples=trained.samples,
        norm=decision.norm,
        threshold=decision.threshold,
        loss_before=trained.loss_before if base is None else base.loss,
        loss_after=trained.loss_after,
        rate=state.rate,
        target=decision.target,
        private=trained.private,
        accuracy_before=None if base is None else base.accuracy,
        exact=exact,
        sha256=b"" if frame is None else hashlib.sha256(frame).digest(),
    )


def measure(assignment: Assignment, learner: Learner) -> Measured | Halted:
    """How good the assigned model is on this device's data, in numbers that a report can carry."""
    found = learner.measure(assignment.weights, assignment.private)
    if isinstance(found, Interrupted):
        return Halted(b"", None)
    accuracy = found.accuracy
    # `not` and this order: NaN is no accuracy.
    sound = accuracy is not None and 0.0 <= accuracy <= 1.0
    return Measured(measured(found.loss), accuracy if sound else None)


def touched(offer: Offer, samples: int) -> int:
    """How many samples an offer's work costs, in samples that are trained on.

    To measure one costs a third of a step: a forward pass without the backward pass, which costs about two.
    """
    measuring = -(-samples // 3) if offer.evaluate else 0
    return measuring + (samples * offer.training.epochs if offer.train else 0)


def caught_up(residual: Residual, echo: Echo, offer: Offer) -> tuple[Residual, Echo]:
    """Residual and echo at an offer's tick: without what is added on this device's behalf up to its round.

    What was added in rounds that it missed counts too. Raises `NonFinite` as `Echo.at` does.
    """
    if offer.echo is None:
        return residual, NO_ECHO
    settings = EchoSettings(offer.echo.gain, offer.echo.memory)
    echo, due = echo.at(offer.echo.source, offer.echo.tick, settings)
    return (residual if due is None else residual.committed(due)), echo


def settled(residual: Residual, echo: Echo, said: Vector, folded: Folded | None) -> tuple[Residual, Echo]:
    """Residual and echo once `said`, a decoded frame, has been committed; `folded`: None without an echo.

    Raises `NonFinite` when a sum overflows.
    """
    due = None
    if folded is not None:
        echo, due = echo.folded(said, folded.source, folded.tick, folded.discount)
    left = residual.committed(said)
    return (left if due is None else left.committed(due)), echo


def _sparing(residual: Residual, kept: Residual, change: Vector, controls: slice) -> Residual:
    """The residual without age and cap on control variates: the coordinator's are a sum of all changes, and
    what were missing there once would be missing for ever."""
    if controls.start == controls.stop:
        return residual
    values = residual.values.copy()
    values[controls] = kept.values[controls] + change[controls]
    return Residual(values, residual.version)


def _encoded(values: Vector, schema: Schema, assignment: Assignment) -> Encoded:
    """The update as a frame, made shorter where it is too long to be paid for and the codec allows it."""
    codec, room = assignment.codec, assignment.room_bytes
    rng = np.random.default_rng(assignment.seed)
    encoded = encode(values, schema, codec, rng)
    if room is not None and 0 < room < len(encoded.frame) and codec.kind == "deadzone":
        with contextlib.suppress(LimitExceeded):
            return encode(values, schema, codec, rng, budget_bytes=room)
    return encoded


def codec_of(offer: Offer) -> CodecSettings:
    """The encoder's settings that an offer asks for. Raises `Malformed` for settings that do not exist."""
    if not offer.codec:
        return CodecSettings()
    try:
        return CodecSettings.from_builtins(msgspec.msgpack.decode(offer.codec))
    except (msgspec.DecodeError, ConfigError, RecursionError, TypeError, ValueError) as e:
        raise Malformed(f"codec of an offer ({e})", value=offer.codec[:32]) from e


def gate_of(offer: Offer) -> GateSettings:
    """The gate that an offer asks for. Raises `Malformed` for one that does not exist."""
    gate = offer.gate
    try:
        return GateSettings(
            gate.mode,  # type: ignore[arg-type]
            gate.threshold,
            gate.force_after,
            target_rate=gate.target_rate,
            bytes_per_day=gate.bytes_per_day,
            loss_factor=gate.loss_factor,
        )
    except ConfigError as e:
        raise Malformed(f"gate of an offer ({e})", value=gate.mode) from e


def feedback_of(offer: Offer) -> FeedbackSettings:
    """What an offer lets a device keep of an old residual: the message's bounds are those of the settings."""
    asked = offer.feedback
    return FeedbackSettings(asked.cap, asked.decay, asked.stale_after)
