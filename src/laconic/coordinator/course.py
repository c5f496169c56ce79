"""The course of one campaign: its rounds, who is expected in them, and the models that come of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec

from laconic.compression import Piece, decode, pieces, whole
from laconic.coordinator import notes, rounds, scaffold
from laconic.coordinator.advance import Score, Version, advance, first, full_frame
from laconic.coordinator.aggregation import echo, optimizers
from laconic.coordinator.aggregation.gathering import gathered
from laconic.coordinator.aggregation.plausible import NormHistory
from laconic.coordinator.aggregation.rule import aggregate
from laconic.coordinator.aggregation.settings import checked
from laconic.coordinator.asking import Asking
from laconic.coordinator.campaign import Campaign, Committed, Progress, Standing, Subject
from laconic.coordinator.compartment import compartment_of
from laconic.coordinator.custody import Custody, Finding
from laconic.coordinator.history import History, Tally
from laconic.coordinator.ledger import Ledger, online
from laconic.coordinator.offering import offer_of
from laconic.coordinator.open_round import OpenRound
from laconic.coordinator.records import Status
from laconic.coordinator.registry import Registry
from laconic.coordinator.rounds import Action, Phase
from laconic.coordinator.schedule import NEVER
from laconic.coordinator.staleness import PastTask, discounted, remember
from laconic.coordinator.treasury import Treasury
from laconic.coordinator.trials import Trials
from laconic.coordinator.way_back import WayBack, way_back
from laconic.errors import ConfigError, StorageError, WireError
from laconic.node import Compute, Effect, Note, Save, Send, StoreView
from laconic.protocol import topics
from laconic.protocol.identity import task_id
from laconic.protocol.messages import Echo, Folded, encode
from laconic.schema import Vector

_NOBODY_WORKED_S = 60.0
_RESUME_GRACE_S = 5.0
"""How long a resumed round stays open at least: the devices must find the coordinator again."""

ADVANCE = "advance/"
"""Jobs that compute a campaign's next version are named so, with the cohort."""


class Course:
    """What a campaign has come to, restored from the store, and what is to be done next.

    An open round's updates are folded as they are committed; a restart folds what is saved.
    """

    def __init__(self, campaign: Campaign, subject: Subject, ledger: Ledger, store: StoreView) -> None:
        """Raises `StorageError` for records that cannot be read or are of another bundle."""
        self.campaign, self.schema, self.ledger = campaign, subject.schema, ledger
        self._subject = subject
        self._compartment = compartment_of(store, campaign.cohort)
        self.registry = Registry(
            self._compartment,
            subject.schema,
            bundle=subject.bundle,
            key=campaign.key,
            chunk_bytes=campaign.chunk_bytes,
            keep_versions=campaign.keep_versions,
        )
        echo.checked(campaign.echo, campaign.aggregation)
        checked(campaign.aggregation, size=subject.schema.size, min_reports=campaign.plan.min_reports)
        scaffold.checked(
            subject.schema,
            rule=campaign.aggregation,
            lateness=campaign.lateness,
            echo_gain=campaign.echo.gain,
        )
        self._controls = scaffold.restore(self._compartment.get(scaffold.KEY), subject.schema)
        """Of all updates that are in the store no more."""
        self.custody = Custody(campaign.models, self.registry, self._compartment)
        self.trials = Trials(self)
        self._turn = 0
        """Number of the last computation: what an earlier one brings has been overtaken."""
        self._moments()
        self._echo, self._echo_of = self._saved_echo(), self._newest
        self._usual = self._saved_norms()
        self.treasury = Treasury(campaign, ledger, self.registry, dense_bytes=self.dense_bytes)
        self.asking = Asking(campaign, ledger, self.treasury)
        self.progress = self._saved_progress()
        self.standing = self._saved_standing()
        self.draining = False
        """Whether no more rounds are opened in this life."""
        self.history, self.tally = History(self._compartment, campaign.history), Tally()
        self.round = rounds.begin(self.progress.number)
        self.book = self._new_book()

    @property
    def dense_bytes(self) -> int:
        """Bytes of an update as float32."""
        return 4 * self.schema.size

    @property
    def bundle(self) -> str:
        """Short hash of the training bundle."""
        return self._subject.bundle

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

    def _ordered(self, standing: Standing) -> Effect:
        self.standing = standing
        return self.save({"standing": msgspec.msgpack.encode(standing)})

    # --- life

    def start(self, now: float) -> list[Effect]:
        """Make version 0 if there is none, and go on with the round that was open."""
        effects: list[Effect] = []
        if self.registry.empty:
            version = first(self._subject.initial, self.schema, self._subject.evaluate)
            entries = self.registry.add(version, now, round_number=0, updates=0, silent=0, samples=0)
            entries |= self.custody.settle()
            effects += [self.save(entries), notes.version(self.registry.current)]
        if (
            self.progress.finished
            and self.progress.number < self.campaign.plan.rounds
            and not self._reached()
        ):
            # More has been asked for since.
            self.progress = msgspec.structs.replace(
                self.progress, number=self.progress.number + 1, finished=False
            )
        if self.custody.request is not None or self.trials.on is not None:
            # The version that was computed last is about to be replaced, or on trial.
            self._refold()
            self.round = rounds.Round(self.progress.number, Phase.ADVANCING)
            if self.custody.request is not None:
                return [*effects, self._compute_way_back()]
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

    def _reached(self) -> bool:
        """Whether the model is as good as it was to become."""
        goal, accuracy = self.campaign.until_accuracy, self.registry.current.accuracy
        return goal is not None and accuracy is not None and accuracy >= goal

    def republish(self) -> list[Effect]:
        """Everything that should lie at the broker, which may have lost it."""
        effects = [*self.registry.publish_all(), self._pointer(), *self.trials.ask()]
        if self.collecting:
            effects += self.offer(self.book.unheard())
        elif self.finished:
            effects += self.offer([], work=False)
        return effects

    def save(self, entries: dict[str, bytes | None]) -> Effect:
        """Write `entries` of this campaign, and whatever the ledger has not saved yet."""
        return Save({**self._compartment.entries(entries), **self.ledger.unsaved()})

    def _new_book(self, expected: Iterable[str] = ()) -> OpenRound:
        return OpenRound(self.schema.size, expected, self.campaign.aggregation, self._usual)

    def _saved_norms(self) -> NormHistory:
        saved = self._compartment.get("norms")
        try:
            history = NormHistory() if saved is None else msgspec.msgpack.decode(saved, type=NormHistory)
        except msgspec.DecodeError as e:
            raise StorageError(f"record norms ({e})", remedy="restore the store from a copy") from e
        if not history.sound:
            raise StorageError("record norms", value=history, remedy="restore the store from a copy")
        return history

    @property
    def _newest(self) -> str:
        """Short hash of the newest version; "" before the first."""
        return "" if self.registry.empty else self.registry.current.name

    def _moments(self) -> optimizers.Moments:
        """What the server optimizer remembers for a step from the newest version."""
        saved = self._compartment.get("server-optimizer")
        return optimizers.restore(saved, self.campaign.server, self._newest, self.schema.size)

    def _saved_echo(self) -> echo.FleetEcho:
        saved = self._compartment.get("server-echo")
        return echo.restore(saved, self.campaign.echo, self._newest, self.schema.size)

    @property
    def fleet_echo(self) -> echo.FleetEcho:
        """What the next step adds to its round's mean; it begins anew when the model has been put back."""
        return self._echo if self._echo_of == self._newest else echo.NOTHING_SAID

    def echo_on_offer(self) -> Echo | None:
        """What devices are told of it."""
        settings, name = self.campaign.echo, f"{self.campaign.fleet}/{self.campaign.cohort}"
        if not settings.gain:
            return None
        source = self.fleet_echo.source(f"{name}/{self.registry.began_at}", self.round.number)
        return Echo(settings.gain, settings.memory, source, self.fleet_echo.tick)

    def folded(self, discount: float) -> Folded | None:
        """Where an update that is committed now is folded, for its device's account."""
        told = self.echo_on_offer()
        return None if told is None else Folded(told.source, told.tick, discount)

    def _settled_controls(self) -> scaffold.Sum:
        """With the updates in the book, whether they make a version or not: devices have moved on."""
        fold = self.book.fold
        if not self._controls.size:
            return self._controls
        return scaffold.after(self._controls, fold.mean(), fold.weight, self.schema.controls)

    def _summary(self, seed: int) -> Callable[[], Vector]:
        """What makes the round's one update, once everything is saved."""
        rule = self.campaign.aggregation
        if rule.streams:
            mean = self.book.fold.mean()
            return lambda: mean
        keys, idle = self.book.keys(), self.book.idle

        def summary() -> Vector:
            rows = gathered(self._compartment, keys, self.schema, silent=idle, memory_bytes=rule.memory_bytes)
            return aggregate(rule, rows, seed)

        return summary

    def _saved_progress(self) -> Progress:
        saved = self._compartment.get("progress")
        if saved is None:
            return Progress()
        try:
            return msgspec.msgpack.decode(saved, type=Progress)
        except msgspec.DecodeError as e:
            raise StorageError(f"record progress ({e})", remedy="restore the store from a copy") from e

    def _saved_standing(self) -> Standing:
        saved = self._compartment.get("standing")
        try:
            return Standing() if saved is None else msgspec.msgpack.decode(saved, type=Standing)
        except msgspec.DecodeError as e:
            raise StorageError(f"record standing ({e})", remedy="restore the store from a copy") from e

    def _refold(self) -> None:
        """Fold what is committed and in no version yet: of the open round, and late updates at any time."""
        self.book = self._new_book(self.progress.expected if self.progress.open else ())
        for key in (*self._compartment.keys("update/"), *self._compartment.keys("late/")):
            try:
                c = msgspec.msgpack.decode(self._compartment.get(key) or b"", type=Committed)
                update = self.pieces_of(c.frame, c.discount)
            except (msgspec.DecodeError, WireError) as e:
                raise StorageError(
                    f"committed update {key} ({e})", remedy="restore the store from a copy"
                ) from e
            self.tally.restored(c)
            if not self.registry.empty and c.base == self.registry.current.name:
                self.custody.heard(c.device, c.weight, c.loss, c.accuracy)
            if key.startswith("late/"):
                self.book.commit_late(c.device, c.update, update, c.weight)
            else:
                self.book.commit(c.device, c.update, update, c.weight)

    def pieces_of(self, frame: bytes, discount: float) -> tuple[Piece, ...]:
        """An update as it is folded. Raises `WireError` for a frame that is none."""
        if discount == 1.0:
            return tuple(pieces(frame, self.schema, limit_bytes=self.dense_bytes))
        return whole(discounted(decode(frame, self.schema, limit_bytes=self.dense_bytes), discount))

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
        effects: list[Effect] = []
        if device not in self.book.expected:
            if not self.asking.joins(device, self.progress, len(self.book.expected), now):
                return []
            self.asking.write_down([device], self.round.number)
            self.treasury.book([device], now)
            effects += self._expect([device], now)
        if self.campaign.targeted and self.book.awaits(device):
            effects += self.offer([device])
        return effects

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
        return self.offer([device], work=self.collecting and self.book.awaits(device), direct=True)

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
                return self._open(now)
            case Action.CLOSE:
                return self._close(now)
            case Action.EXTEND:
                self.tally.extended()
                note = Note("extended", {"round": self.round.number, "reported": self.round.reported})
                return [note, *self._ask_more(now)]
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

    def _open(self, now: float) -> list[Effect]:
        base = self.registry.current
        task = task_id(self.campaign.fleet, self.round.number, base.name)
        past = PastTask(self.round.number, task, base.name, base.version)
        tasks = remember(self.progress.tasks, past, self.campaign.lateness)
        self.treasury.begin(task)
        picked = self.asking.first(task, self.round.number, now)
        self.treasury.book(picked.names, now)
        self.progress = Progress(
            number=self.round.number,
            open=True,
            opened_at=now,
            task=task,
            share=picked.share,
            expected=picked.names,
            tasks=tasks,
        )
        # Late updates that came before are in the book already.
        self.book.expected.update(picked.names)
        effects: list[Effect] = [
            self.save({"progress": msgspec.msgpack.encode(self.progress)}),
            *picked.notes,
            notes.opened(self.progress, base.version, fairness=self.asking.fairness()),
            *self.offer(picked.names),
        ]
        late = len(self.book.late)
        for _ in picked.names:
            effects += self.step(rounds.Joined(), now)
        for _ in range(late):
            effects += self.reported_late(now)
        return effects

    def _expect(self, devices: list[str], now: float) -> list[Effect]:
        """More devices are expected in the open round; that they are chosen is saved before it is offered."""
        self.book.expected.update(devices)
        effects: list[Effect] = []
        if self.campaign.selection.by_name and (new := set(devices).difference(self.progress.expected)):
            expected = [*self.progress.expected, *(name for name in devices if name in new)]
            self.progress = msgspec.structs.replace(self.progress, expected=expected)
            effects.append(self.save({"progress": msgspec.msgpack.encode(self.progress)}))
        for _ in devices:
            effects += self.step(rounds.Joined(), now)
        return effects

    def _ask_more(self, now: float) -> list[Effect]:
        """Too few have reported: ask more, and those who owe an answer once more, by name.

        The hash would choose the same few for ever, and an offer may have been lost or displaced.
        """
        picked = self.asking.more(self.progress, self.book.expected, now)
        wider = picked.share > self.progress.share
        self.progress = msgspec.structs.replace(self.progress, share=picked.share)
        new = [name for name in picked.names if name not in self.book.expected]
        self.treasury.book(new, now)
        here = online(self.ledger, self.campaign.cohort)
        owing = [r.name for r in here if self.book.awaits(r.name)]
        effects = [*picked.notes, *self._expect(new, now)]
        effects += self.offer(new) if new or wider else []
        return effects + self.offer(owing, direct=True)

    def offer(self, devices: list[str], *, work: bool = True, direct: bool = False) -> list[Effect]:
        """The open round's task, to the cohort or (`direct`, or in a targeted campaign) to `devices`.

        Without `work` it is word of the newest model.
        """
        c, base = self.campaign, self.registry.offered
        told, bundle = self.echo_on_offer(), self._subject.bundle
        offer = offer_of(c, self.progress, self.round.number, base, told, bundle=bundle, work=work)
        if direct or (c.targeted and work):
            to = self.treasury.offer_to
            return [Send(topics.device_task(name), encode(to(name, offer))) for name in devices]
        return [Send(topics.cohort_task(c.cohort), encode(self.treasury.offer_to(None, offer)), retain=True)]

    def _pointer(self) -> Effect:
        """Where a device that has no model yet finds the newest, whether or not there is a coordinator."""
        c, base, number = self.campaign, self.registry.offered, self.round.number
        offer = offer_of(c, self.progress, number, base, None, bundle=self.bundle, work=False)
        return Send(topics.cohort_model(c.cohort), encode(self.treasury.offer_to(None, offer)), retain=True)

    def _close(self, now: float) -> list[Effect]:
        """Compute the next version away from the event loop, from values that no later message changes."""
        finding = self.custody.judge_newest()
        if finding.target is not None:
            return self._take_back(finding.target, finding.why, now)
        c, registry = self.campaign, self.registry
        sounding, number = self.fleet_echo, self.round.number
        if not self.book.updates and not (self.book.samples and sounding.outweighs_silence(registry.weights)):
            # Nobody had anything to say: the next round starts from the same version.
            return self._end_round({}, [], now)
        weights, residual, seed = registry.weights, registry.residual, registry.current.version + 1
        schema, evaluate, full = self.schema, self._subject.evaluate, registry.wants_full()
        known = registry.digests()

        summary = self._summary(seed)
        controls, samples = self._settled_controls(), scaffold.taking_part(self.ledger, c.cohort)

        def compute() -> Version:
            mean = summary()
            moments, change = optimizers.step(c.server, self._moments(), sounding.added(mean))
            change = scaffold.step(
                change, controls, samples, weights=weights, residual=residual, schema=schema
            )
            version = advance(
                weights,
                residual,
                change,
                schema,
                codec=c.delta_codec,
                seed=seed,
                full=full,
                evaluate=evaluate,
            )
            if version.full is None and version.digest in known:
                # It takes an older version's name, and no delta leads past that.
                version = replace(version, full=full_frame(version.weights, schema))
            return replace(version, moments=moments, echo=sounding.after(mean, c.echo, number))

        return [self._compute(compute)]

    def _compute(self, work: Callable[[], Version | WayBack]) -> Effect:
        self._turn += 1
        turn = self._turn
        return Compute(ADVANCE + self.campaign.cohort, lambda: (turn, work()))

    def advanced(self, result: object, now: float) -> list[Effect]:
        """The next version has been computed: save it, publish it, and end the round."""
        if isinstance(result, Exception):
            # Nothing is lost: the updates are in the store, and a restart comes back to this point.
            raise result
        assert isinstance(result, tuple)
        turn, result = result
        if turn != self._turn:
            return []
        if isinstance(result, WayBack):
            return self._went_back(result, now)
        assert isinstance(result, Version)
        taken = self._taken()
        if result.digest == self.registry.current.weights:
            # A version is known by its weights: one that changed nothing would be its own parent.
            return self._end_round({**self.registry.keep(result), **self._remember(result), **taken}, [], now)
        finding, tries = self.custody.judge_candidate(result), self.campaign.models.tries
        if finding.target is not None:
            return self._refuse(result, finding, now)
        entries = self.custody.settle()
        entries |= self.registry.add(
            result,
            now,
            round_number=self.round.number,
            updates=self.book.updates,
            silent=self.book.silent,
            samples=self.book.samples,
            status=Status.CANDIDATE if tries else Status.PUBLISHED,
            worse=finding.worse,
            why=finding.why,
            settings=self.campaign.digest(),
        )
        entries |= {**self._remember(result), **taken}
        publication = [*self.registry.publish_newest(result), notes.version(self.registry.current)]
        if tries:
            return self._try_out(entries, publication, now)
        return self._end_round(entries, [*publication, self._pointer()], now)

    def _taken(self) -> dict[str, bytes | None]:
        """Takes every committed update out of the store."""
        late = {f"late/{device}/{update}": None for update, device in self.book.late.items()}
        return {**{f"update/{device}": None for device in self.book.committed}, **late}

    # --- versions that are tried, refused and taken back

    def rollback(self, version: int, now: float) -> list[Effect]:
        """Bring back the weights of an older version, as a new one.

        Raises `ConfigError` for a version whose weights are not kept, or are those of the newest.
        """
        if self.registry.weights_of(version).tobytes() == self.registry.weights.tobytes():
            raise ConfigError(
                "version to roll back to",
                value=version,
                limit=f"one with other weights than the newest, {self.registry.current.version}",
            )
        return self._take_back(version, "by hand", now)

    def pin(self, version: int, *, pinned: bool = True) -> list[Effect]:
        """Keep a version's weights whatever its age, or no longer. Raises `ConfigError` if they are gone."""
        return [self.save(self.registry.pin(version, pinned=pinned))]

    def _refuse(self, candidate: Version, finding: Finding, now: float) -> list[Effect]:
        """Do not publish a candidate, and drop its round's updates: folded again they would be as bad again.

        Residual, optimizer and echo stay what they are for the newest version; but devices were told that
        their updates would sound.
        """
        assert finding.target is not None
        book, score, number = self.book, candidate.score, self.round.number
        entries = self.registry.refuse(
            candidate,
            now,
            round_number=number,
            updates=book.updates,
            silent=book.silent,
            samples=book.samples,
            why=finding.why,
        )
        loss, accuracy = (None, None) if score is None else (score.loss, score.accuracy)
        refused = notes.refused(number, book, loss=loss, accuracy=accuracy, why=finding.why)
        self._echo = echo.NOTHING_SAID
        entries |= {**self._taken(), "server-echo": None}
        if finding.target == self.registry.current.version:
            return self._end_round(entries, [refused], now)
        closed, _ = self._balance(entries, now)
        return [refused, closed, *self._take_back(finding.target, finding.why, now, entries)]

    def _try_out(
        self, entries: dict[str, bytes | None], publication: list[Effect], now: float
    ) -> list[Effect]:
        """Let a part of the fleet measure the newest version; that, too, ends the round."""
        closed, due = self._balance(entries, now)
        trial = self.trials.prepare(due)
        entries |= self.custody.try_out(trial)
        self.wait(now + self.campaign.models.canary_deadline_s)
        begun = notes.trial("begun", trial, reports=0)
        return [self.save(entries), *publication, closed, begun, *self.trials.ask()]

    def tried(self, now: float) -> list[Effect]:
        """The trial has its reports: promote the version, or take it back."""
        trial, finding = self.trials.on, self.custody.judge_newest()
        assert trial is not None
        if finding.target is not None:
            return self._take_back(finding.target, finding.why, now)
        reports = self.custody.reports
        entries = self.registry.note(trial.version, status=Status.PUBLISHED)
        entries |= {**self.custody.settle(), **self.custody.try_out(None)}
        promoted = [self._pointer(), notes.trial("passed", trial, reports=reports)]
        return self._go_on(entries, promoted, now, trial.due)

    def _take_back(
        self, target: int, why: str, now: float, entries: dict[str, bytes | None] | None = None
    ) -> list[Effect]:
        """Begin to replace the newest version by an older one: decided and written down first."""
        asked = self.custody.request
        again = asked.again if asked is not None else not (self.progress.open or self.advancing)
        entries = {**(entries or {}), **self.custody.ask(target, why, again=again)}
        return [self.save(entries), *self.step(rounds.TakenBack(), now), self._compute_way_back()]

    def _compute_way_back(self) -> Effect:
        request, weights, schema = self.custody.request, self.registry.weights, self.schema
        assert request is not None
        target, record = self.registry.weights_of(request.target), self.registry[request.target]
        score = None if record.loss is None else Score(record.loss, record.accuracy)
        return self._compute(
            lambda: way_back(weights, target, schema, version=request.target, why=request.why, score=score)
        )

    def _went_back(self, back: WayBack, now: float) -> list[Effect]:
        """An older version's weights are the newest again.

        What was learnt from the models in between is dropped: the updates committed and not folded, and the
        tasks whose updates would still be taken. Devices keep what they have not sent.
        """
        request, dropped = self.custody.request, self.book.updates
        assert request is not None
        entries = self._taken()
        self.book.norms.clear()
        open_round = self.progress.open
        closed, _ = self._balance(entries, now)
        # Nobody was kept from working but by this: the next round needs no pause.
        due = self.progress.opened_at + self.campaign.plan.interval_s
        entries |= self.custody.go_back(
            back, now, round_number=self.round.number, settings=self.campaign.digest()
        )
        self._echo = echo.NOTHING_SAID
        self.progress = msgspec.structs.replace(self.progress, tasks=[])
        current = self.registry.current
        publication = [*self.registry.publish_newest(*back.steps), self._pointer()]
        publication += [notes.rolled_back(current, dropped=dropped), *([closed] if open_round else [])]
        return self._go_on(entries, publication, now, due, again=request.again)

    def _remember(self, result: Version) -> dict[str, bytes | None]:
        """The memory of server optimizer and echo, of the version that is now the newest."""
        moments, name = result.moments, self._newest
        self._echo, self._echo_of = result.echo, name
        saved = optimizers.save(self.campaign.server, moments, name) if moments.vectors else None
        return {"server-optimizer": saved, "server-echo": echo.save(self.campaign.echo, result.echo, name)}

    def _recorded(self, now: float) -> dict[str, bytes | None]:
        """The record of the round that ends, with the version that it made."""
        newest = self.registry.current
        made = newest if newest.version and newest.round == self.round.number else None
        tally, self.tally = self.tally, Tally()
        record = tally.record(
            self.progress,
            self.book,
            now,
            base=newest.version if made is None else newest.version - 1,
            names=self.campaign.history.names,
        )
        if made is not None:
            record = msgspec.structs.replace(
                record, version=made.version, loss=made.loss, accuracy=made.accuracy
            )
        return self.history.add(record)

    def _end_round(
        self, entries: dict[str, bytes | None], publication: list[Effect], now: float
    ) -> list[Effect]:
        """One `Save` takes the folded updates out and the new version in; only then is it published."""
        closed, due = self._balance(entries, now)
        return self._go_on(entries, [*publication, closed], now, due)

    def _balance(self, entries: dict[str, bytes | None], now: float) -> tuple[Effect, float]:
        """Close the book, with what is to be saved of it; returns a note and when the next round may open."""
        closed = notes.closed(self.round.number, self.book, seconds=now - self.progress.opened_at)
        for name in self.book.unheard():
            self.ledger.vanished(name, self.progress.task)
        if (usual := self._usual.after(self.book.norms.values())) is not self._usual:
            self._usual = usual
            entries["norms"] = msgspec.msgpack.encode(usual)
        entries |= self._recorded(now)
        self._controls = self._settled_controls()
        entries |= scaffold.save(self._controls)
        due = self.progress.opened_at + self.campaign.plan.interval_s
        if not self.book.samples:
            # Nobody has worked (no battery, no data): asking again at once would not help them.
            due = max(due, now + min(_NOBODY_WORKED_S, self.campaign.plan.deadline_s))
        self.book = self._new_book()
        entries |= self.custody.settle()
        self.progress = msgspec.structs.replace(self.progress, open=False, expected=[])
        entries["progress"] = msgspec.msgpack.encode(self.progress)
        return closed, due

    def _go_on(
        self,
        entries: dict[str, bytes | None],
        publication: list[Effect],
        now: float,
        due: float,
        *,
        again: bool = False,
    ) -> list[Effect]:
        """Save how a round has ended, and go on with the next one; `again`: with the same one."""
        over = self._reached() or (again and self.progress.finished)
        after = self.step(rounds.Advanced(over, again), now)
        self.progress = Progress(
            number=self.round.number,
            opened_at=self.progress.opened_at,
            finished=self.finished,
            tasks=self.progress.tasks,
        )
        if self.round.phase is Phase.WAITING and due > now:
            self.round = replace(self.round, deadline=due)
        entries |= {"progress": msgspec.msgpack.encode(self.progress)}
        effects = [self.save(entries), *publication, *after]
        if self.finished:
            return effects + self.offer([], work=False)
        opened = self.try_open(now)
        if not self.collecting and not self.campaign.targeted:
            # Whoever comes before the next round must not work for the last one.
            effects.append(Send(topics.cohort_task(self.campaign.cohort), b"", retain=True))
        return effects + opened
