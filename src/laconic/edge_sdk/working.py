"""A task's work on the device: the job that is made of an offer, and what is kept of its outcome."""

from __future__ import annotations

from laconic.edge_sdk.bookkeeping import Bookkeeping
from laconic.edge_sdk.learner import Learner
from laconic.edge_sdk.pausing import Pausing
from laconic.edge_sdk.records import Held
from laconic.edge_sdk.retained import Retained
from laconic.edge_sdk.work import Assignment, Halted, Outcome, codec_of, feedback_of, gate_of, job, seed_of
from laconic.node import Effect, Note, StoreView
from laconic.protocol.messages import Offer


class Working:
    """Trains, or measures, with what the device holds: `laconic.edge_sdk.work` does it on another thread."""

    def __init__(self, name: str, learner: Learner, books: Bookkeeping, retained: Retained) -> None:
        self._name, self._learner, self._books, self._retained = name, learner, books, retained
        self._pausing = Pausing()

    def restore(self, store: StoreView, *, answered: str) -> list[str]:
        """Take up a training that an earlier life has begun; names what is damaged."""
        return self._pausing.restore(store, answered=answered)

    def begin(self, offer: Offer, held: Held, now: float) -> list[Effect]:
        """Begin an offer's work on its model, which is held."""
        assignment = Assignment(
            offer=offer,
            weights=held.weights,
            residual=self._retained.residual,
            gate_state=self._books.diary.gate,
            codec=codec_of(offer),
            gate=gate_of(offer),
            seed=seed_of(self._name, offer.task),
            private=self._retained.private,
            feedback=feedback_of(offer),
            echo=self._retained.echo,
            now=now,
            room_bytes=self._books.frame_room(now),
            begun=self._pausing.begun(offer),
        )
        self._pausing.release()
        samples = self._learner.samples
        note = Note("training", {"round": offer.round, "samples": samples})
        if assignment.begun.checkpoint:
            note = Note("training on", {"round": offer.round, "seconds": assignment.begun.seconds})
        if not offer.train:
            note = Note("measuring", {"version": offer.version, "samples": samples})
        return [note, job(assignment, self._learner)]

    def keep(self, offer: Offer, halted: Halted, seconds: float) -> Effect:
        """Write down how far an offer's work has come, after `seconds` more of it."""
        return self._pausing.keep(offer, halted, seconds)

    def seconds_before(self, offer: Offer) -> float:
        """Seconds of work on an offer before it was begun the last time."""
        return self._pausing.begun(offer).seconds

    def hold(self, now: float) -> float | None:
        """Work may not go on now: when to look again, None if it has been held up for long enough."""
        return self._pausing.hold(now)

    def give_up(self) -> list[Effect]:
        """The work is over, or not worth going on with."""
        return self._pausing.forget()

    def learn(self, offer: Offer, outcome: Outcome) -> None:
        """Training has ended; the caller saves what it changed, with the diary."""
        self._retained.learn(outcome)
        self._books.write_down(
            gate=outcome.gate_state,
            residual_version=outcome.residual.version,
            echo=self._retained.echo_note,
        )
        self._books.trained_on(outcome.samples * offer.training.epochs)
