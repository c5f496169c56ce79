"""The course of one campaign: its rounds, who is expected in them, and the models that come of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from laconic.compression import Piece
from laconic.coordinator import notes, restoring, rounds
from laconic.coordinator.advance import first
from laconic.coordinator.asking import Asking
from laconic.coordinator.campaign import Campaign, Progress, Standing, Subject
from laconic.coordinator.closing import Closing
from laconic.coordinator.compartment import compartment_of
from laconic.coordinator.custody import Custody
from laconic.coordinator.history import History, Tally
from laconic.coordinator.ledger import Ledger
from laconic.coordinator.offering import Offering
from laconic.coordinator.open_round import OpenRound
from laconic.coordinator.opening import Opening
from laconic.coordinator.registry import Registry
from laconic.coordinator.rollbacks import Rollbacks
from laconic.coordinator.rounds import Action, Phase
from laconic.coordinator.schedule import NEVER
from laconic.coordinator.server_state import ServerState
from laconic.coordinator.staleness import PastTask, pieces_of
from laconic.coordinator.treasury import Treasury
from laconic.coordinator.trials import Trials
from laconic.node import Effect, Note, Save, StoreView
from laconic.protocol.messages import Folded
from laconic.schema import Schema

_RESUME_GRACE_S = 5.0
"""How long a resumed round stays open at least: the devices must find the coordinator again."""


class Course:
    """What a campaign has come to, restored from the store, and what is to be done next.

    It hears what happens, tells the round machine, and has done what the machine says: `Opening` and
    `Closing` do it for rounds, `Trials` and `Rollbacks` for versions, and `Offering` tells the devices.

    An open round's updates are folded as they are committed; a restart folds what is saved.
    """

    def __init__(self, campaign: Campaign, subject: Subject, ledger: Ledger, store: StoreView) -> None:
        """Raises `StorageError` for records that cannot be read or are of another bundle, `ConfigError` for
        settings that contradict each other."""
        self.campaign, self.subject, self.ledger = campaign, subject, ledger
        self.store = compartment_of(store, campaign.cohort)
        """The campaign's part of it."""
        self.registry = Registry(
            self.store,
            subject.schema,
            bundle=subject.bundle,
            key=campaign.key,
            chunk_bytes=campaign.chunk_bytes,
            keep_versions=campaign.keep_versions,
        )
        self.server = ServerState(campaign, subject.schema, self.registry, self.store)
        self.custody = Custody(campaign.models, self.registry, self.store)
        self.treasury = Treasury(campaign, ledger, self.registry, dense_bytes=4 * subject.schema.size)
        self.asking = Asking(campaign, ledger, self.treasury)
        self.offering, self.opening, self.closing = Offering(self), Opening(self), Closing(self)
        self.trials, self.rollbacks = Trials(self), Rollbacks(self)
        self.progress = restoring.record(self.store, "progress", Progress) or Progress()
        self.standing = restoring.record(self.store, "standing", Standing) or Standing()
        self.draining = False
        """Whether no more rounds are opened in this life."""
        self.history, self.tally = History(self.store, campaign.history), Tally()
        self.round = rounds.begin(self.progress.number)
        self.book = self.new_book()

    @property
    def schema(self) -> Schema:
        """Order of the weights."""
        return self.subject.schema

    @property
    def bundle(self) -> str:
        """Short hash of the training bundle."""
        return self.subject.bundle

    @property
    def wake_at(self) -> float | None:
        """When the round wants `timed_out`, in seconds on the driver's clock; None for never."""
        return self.round.deadline

    @property
    def finished(self) -> bool:
        """Whether the last round is over."""
        return self.round.phase is Phase.FINISHED

    @property
    def advancing(self) -> bool:
        """Whether the next version is being computed."""
        return self.round.phase is Phase.ADVANCING

    @property
    def collecting(self) -> bool:
        """Whether reports are taken."""
        return self.round.phase is Phase.COLLECTING

    @property
    def held_until(self) -> float | None:
        """While no round may open: when one may; None for never, or if one may."""
        return self.round.deadline if self.round.phase is Phase.PAUSED else None

    # --- by hand

    def pause(self, now: float) -> list[Effect]:
        """Open no more rounds until `resume`; one that is open is finished."""
        said = Note("paused", {"round": self.round.number})
        return [self._ordered(Standing(paused=True)), said, *self.try_open(now)]

    def resume(self, now: float) -> list[Effect]:
        """Open rounds again, as the schedule allows."""
        said = [self._ordered(Standing()), Note("continued", {"round": self.round.number})]
        paused = self.round.phase is Phase.PAUSED
        return [*said, *(self.step(rounds.TimedOut(), now) if paused else self.try_open(now))]

    def drain(self, now: float) -> list[Effect]:
        """Open no more rounds in this life."""
        self.draining = True
        return self.try_open(now)

    def pin(self, version: int, *, pinned: bool = True) -> list[Effect]:
        """Keep a version's weights whatever its age, or no longer. Raises `ConfigError` if they are gone."""
        return [self.save(self.registry.pin(version, pinned=pinned))]

    def _ordered(self, standing: Standing) -> Effect:
        self.standing = standing
        return self.save({"standing": msgspec.msgpack.encode(standing)})

    # --- life

    def start(self, now: float) -> list[Effect]:
        """Make version 0 if there is none, and go on with the round that was open."""
        effects: list[Effect] = []
        if self.registry.empty:
            version = first(self.subject.initial, self.schema, self.subject.scorer())
            entries = self.registry.add(version, now, round_number=0, updates=0, silent=0, samples=0)
            entries |= self.custody.settle()
            effects += [self.save(entries), notes.version(self.registry.current)]
        if self.progress.finished and self.progress.number < self.campaign.plan.rounds and not self.reached():
            # More has been asked for since.
            self.progress = msgspec.structs.replace(
                self.progress, number=self.progress.number + 1, finished=False
            )
        if self.custody.request is not None or self.trials.on is not None:
            # The version that was computed last is about to be replaced, or on trial.
            self._refold()
            self.round = rounds.Round(self.progress.number, Phase.ADVANCING)
            if self.custody.request is not None:
                return [*effects, self.rollbacks.go_back()]
            self.wait(now + self.campaign.models.canary_deadline_s)
            return effects
        if self.progress.finished:
            self.round = rounds.Round(self.progress.number, Phase.FINISHED)
            return effects
        self.round = rounds.begin(self.progress.number)
        self._refold()
        if self.progress.open:
            self._resume(now)
            effects.append(
                Note("resumed", {"round": self.round.number, "committed": dict(self.book.committed)})
            )
            effects += self.step(rounds.Resumed(), now)
        elif self._held(now):
            effects += self._hold(now)
        return effects

    def reached(self) -> bool:
        """Whether the model is as good as it was to become."""
        goal, accuracy = self.campaign.until_accuracy, self.registry.current.accuracy
        return goal is not None and accuracy is not None and accuracy >= goal

    def save(self, entries: dict[str, bytes | None]) -> Effect:
        """Write `entries` of this campaign, and whatever the ledger has not saved yet."""
        return Save({**self.store.entries(entries), **self.ledger.unsaved()})

    def new_book(self, expected: Iterable[str] = ()) -> OpenRound:
        """The book of a round, or of what comes before it."""
        return OpenRound(self.schema.size, expected, self.campaign.aggregation, self.server.usual)

    def _refold(self) -> None:
        """Fold what is committed and in no version yet: of the open round, and late updates at any time."""
        self.book = self.new_book(self.progress.expected if self.progress.open else ())
        for c, change, late in restoring.committed(self.store, self.schema):
            self.tally.restored(c)
            if not self.registry.empty and c.base == self.registry.current.name:
                self.custody.heard(c.device, c.weight, c.loss, c.accuracy)
            commit = self.book.commit_late if late else self.book.commit
            commit(c.device, c.update, change, c.weight)

    def _resume(self, now: float) -> None:
        """Put an open round back to where it was: its committed updates are expected and reported."""
        deadline = max(self.progress.opened_at + self.campaign.plan.deadline_s, now + _RESUME_GRACE_S)
        late = len(self.book.late)
        self.round = rounds.resume(
            self.progress.number,
            expected=len(self.book.expected) + late,
            reported=len(self.book.committed) + late,
            deadline=deadline,
        )

    # --- devices

    def arrived(self, device: str, now: float) -> list[Effect]:
        """Word of a device of the cohort: if it is here, expect it in the open round if it is chosen."""
        if self.round.phase is Phase.WAITING:
            return self.try_open(now)
        if self.trials.on is not None:
            return self.trials.arrived(device)
        if not self.collecting or not self.ledger[device].online:
            return []
        return self.opening.arrived(device, now)

    def left(self, device: str, now: float) -> list[Effect]:
        """A device has gone, or has answered in a way that cannot be used: the round does not wait for it."""
        if self.trials.on is not None:
            return self.trials.left(device, now)
        if not self.collecting or not self.book.awaits(device):
            return []
        self.book.expected.discard(device)
        self.ledger.vanished(device, self.progress.task)
        return self.step(rounds.Left(), now)

    def reported(self, *, was_expected: bool, was_heard: bool, now: float) -> list[Effect]:
        """A report has been entered into the book: count it, once."""
        effects: list[Effect] = []
        if not was_expected:
            effects += self.step(rounds.Joined(), now)
        if not was_heard:
            effects += self.step(rounds.Reported(), now)
        return effects

    def reported_late(self, now: float) -> list[Effect]:
        """A late update has been entered into the book: one more report, if a round is open."""
        return self.step(rounds.Joined(), now) + self.step(rounds.Reported(), now)

    def past_task(self, task: str) -> PastTask | None:
        """A task that has been on offer, if late updates are taken and it is not too long ago."""
        return next((t for t in self.progress.tasks if t.task == task), None)

    def tell_current(self, device: str) -> list[Effect]:
        """Tell a device that has answered a task of the past what there is to do now, if anything."""
        return self.offering.current(device)

    def pieces_of(self, frame: bytes, discount: float) -> tuple[Piece, ...]:
        """An update as it is folded. Raises `WireError` for a frame that is none."""
        return pieces_of(frame, self.schema, discount)

    def folded(self, discount: float) -> Folded | None:
        """Where an update that is committed now is folded, for its device's account."""
        return self.server.folded(self.round.number, discount)

    def wait(self, until: float) -> None:
        """Want `timed_out` then, in the phase at hand."""
        self.round = replace(self.round, deadline=until)

    # --- rounds

    def timed_out(self, now: float) -> list[Effect]:
        """The moment of `wake_at` has come."""
        if self.trials.on is not None:
            return self.trials.timed_out(now)
        return self.step(rounds.TimedOut(), now)

    def step(self, given: rounds.Input, now: float) -> list[Effect]:
        """Give the round machine an input and do what it says."""
        self.round, action = rounds.step(self.campaign.plan, self.round, given, now)
        match action:
            case Action.OPEN:
                return self.opening.open(now)
            case Action.CLOSE:
                return self.closing.close(now)
            case Action.EXTEND:
                self.tally.extended()
                note = Note("extended", {"round": self.round.number, "reported": self.round.reported})
                return [note, *self.opening.ask_more(now)]
            case Action.FINISH:
                return [Note("finished", {"rounds": self.round.number})]
            case None if isinstance(given, rounds.TimedOut):
                return self.try_open(now)
            case None:
                return []

    def try_open(self, now: float) -> list[Effect]:
        """Open the next round, if enough devices are here, it is due and the schedule allows it."""
        if self.round.phase is not Phase.WAITING:
            return []
        if (self.round.deadline is None or now >= self.round.deadline) and self._held(now):
            return self._hold(now)
        here = self.ledger.count_online(self.campaign.cohort)
        return self.step(rounds.Present(here), now) if here else []

    def _held(self, now: float) -> bool:
        return self._opens_at(now) > now

    def _opens_at(self, now: float) -> float:
        if self.standing.paused or self.draining:
            return NEVER
        since = self.progress.opened_at or self.registry.began_at
        return self.campaign.schedule.opens_at(now, since=since)

    def _hold(self, now: float) -> list[Effect]:
        until = self._opens_at(now)
        said = {"round": self.round.number, "until": None if until == NEVER else until}
        return [Note("held", said), *self.step(rounds.Held(None if until == NEVER else until), now)]
