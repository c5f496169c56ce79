"""The coordinator as a Node: messages in, effects out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec

from laconic.compression import Piece, pieces
from laconic.coordinator import notes, rounds, selection
from laconic.coordinator.advance import Evaluate, Version, advance, first
from laconic.coordinator.campaign import Campaign, Committed, Progress
from laconic.coordinator.inbox import Inbox
from laconic.coordinator.ledger import Ledger, online
from laconic.coordinator.offering import offer_of
from laconic.coordinator.open_round import OpenRound
from laconic.coordinator.registry import Registry
from laconic.coordinator.rounds import Action, Phase
from laconic.errors import LaconicError, Malformed, RemoteProtocolError, StorageError, WireError
from laconic.node import (
    Compute,
    Computed,
    Connected,
    Effect,
    Event,
    Note,
    Received,
    Save,
    Send,
    Started,
    StoreView,
    Subscribe,
    Will,
    Woke,
)
from laconic.protocol import topics
from laconic.protocol.identity import task_id, update_id
from laconic.protocol.messages import (
    Ack,
    Fate,
    Fin,
    Skip,
    State,
    Telemetry,
    encode,
)
from laconic.protocol.messages import decode as decode_message
from laconic.schema import Schema, Vector

_MAX_MISSING_NAMED = 256
_NOBODY_WORKED_S = 60.0
_RESUME_GRACE_S = 5.0
"""How long a resumed round stays open at least: the devices must find the coordinator again."""


class CoordinatorEngine:
    """Runs a campaign. See `laconic.node.Node`.

    An update is checked, saved, and only then answered `committed` and folded; a restart folds what is saved.
    """

    def __init__(
        self, campaign: Campaign, schema: Schema, *, bundle: str, initial: Vector, evaluate: Evaluate
    ) -> None:
        """`bundle` is the short hash of the training bundle, `initial` the weights of version 0."""
        self._campaign, self._schema, self._bundle = campaign, schema, bundle
        self._initial, self._evaluate = initial, evaluate
        self._dense_bytes = 4 * schema.size
        self._inbox = Inbox(
            update_limit_bytes=2 * self._dense_bytes + 4096 + 256 * len(schema.tensors),
            total_limit_bytes=campaign.max_arriving_bytes,
        )
        self._progress = Progress()
        self._round = rounds.begin(1)
        self._book = OpenRound(schema.size)
        self._ledger: Ledger
        self._registry: Registry

    # --- Node

    @property
    def will(self) -> Will | None:
        return None

    @property
    def wake_at(self) -> float | None:
        return self._round.deadline

    @property
    def finished(self) -> bool:
        """Whether the last round is over."""
        return self._round.phase is Phase.FINISHED

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Started(store):
                return self._start(store, now)
            case Connected():
                return [Subscribe((topics.EVERY_UP,)), *self._republish(now)]
            case Received(topic, payload):
                return self._receive(topic, payload, now)
            case Computed("advance", result):
                return self._advanced(result, now)
            case Woke():
                return self._step(rounds.TimedOut(), now)
            case _:
                return ()

    # --- life

    def _start(self, store: StoreView, now: float) -> list[Effect]:
        self._ledger = Ledger(store, max_devices=self._campaign.max_devices)
        self._registry = Registry(
            store,
            self._schema,
            bundle=self._bundle,
            key=self._campaign.key,
            chunk_bytes=self._campaign.chunk_bytes,
            keep_versions=self._campaign.keep_versions,
        )
        saved = store.get("progress")
        if saved is not None:
            try:
                self._progress = msgspec.msgpack.decode(saved, type=Progress)
            except msgspec.DecodeError as e:
                raise StorageError(f"record progress ({e})", remedy="restore the store from a copy") from e
        effects: list[Effect] = []
        if self._registry.empty:
            version = first(self._initial, self._schema, self._evaluate)
            effects.append(
                Save(self._registry.add(version, now, round_number=0, updates=0, silent=0, samples=0))
            )
            effects.append(notes.version(self._registry.current))
        if self._progress.finished and self._progress.number < self._campaign.plan.rounds:
            # More rounds have been asked for since.
            self._progress = Progress(number=self._progress.number + 1)
        if self._progress.finished:
            self._round = rounds.Round(self._progress.number, Phase.FINISHED)
            return effects
        self._round = rounds.begin(self._progress.number)
        if self._progress.open:
            self._resume(store, now)
            effects.append(
                Note("resumed", {"round": self._round.number, "committed": dict(self._book.committed)})
            )
            effects += self._step(rounds.Resumed(), now)
        return effects

    def _resume(self, store: StoreView, now: float) -> None:
        """Put an open round back to where it was: its committed updates are expected, reported and folded."""
        self._book = OpenRound(self._schema.size, self._progress.expected)
        for key in store.keys("update/"):
            try:
                c = msgspec.msgpack.decode(store.get(key) or b"", type=Committed)
                update = tuple(pieces(c.frame, self._schema, limit_bytes=self._dense_bytes))
            except (msgspec.DecodeError, WireError) as e:
                raise StorageError(
                    f"committed update {key} ({e})", remedy="restore the store from a copy"
                ) from e
            self._book.commit(c.device, c.update, update, c.weight)
        deadline = max(self._progress.opened_at + self._campaign.plan.deadline_s, now + _RESUME_GRACE_S)
        self._round = rounds.resume(
            self._progress.number,
            expected=len(self._book.expected),
            reported=len(self._book.committed),
            deadline=deadline,
        )

    def _republish(self, now: float) -> list[Effect]:
        effects = list(self._registry.publish_all())
        if self._round.phase is Phase.COLLECTING:
            effects += self._offer(self._book.unheard())
        elif self._round.phase is Phase.FINISHED:
            effects += self._offer([], work=False)
        return effects

    # --- messages

    def _receive(self, topic: str, payload: bytes, now: float) -> Sequence[Effect]:
        try:
            address = topics.parse(topic)
            if self._foreign(address):
                return ()
            match address:
                case topics.State(device):
                    return self._state(device, decode_message(State, payload), now)
                case topics.Telemetry(device):
                    t = decode_message(Telemetry, payload)
                    self._ledger.told(device, t, now)
                    return [Note("telemetry", {"device": device, **msgspec.structs.asdict(t)})]
                case topics.UpdateChunk(device, update, index):
                    self._inbox.add(device, update, index, payload)
                    return ()
                case topics.UpdateFin(device, update):
                    return self._fin(device, update, payload, now)
                case topics.Skip(device):
                    return self._skip(device, decode_message(Skip, payload), now)
                case _:
                    raise Malformed("topic", value=topic, limit="topics of devices upwards")
        except LaconicError as e:
            return [self._dropped(topics.sender(topic), topic, e)]

    def _foreign(self, address: topics.Address) -> bool:
        """Whether a message is for another coordinator on the same broker: it is not ours to answer."""
        if isinstance(address, topics.State) or not hasattr(address, "device"):
            return False
        record = self._ledger[address.device]
        return bool(record.last_seen) and record.cohort != self._campaign.cohort

    def _dropped(self, device: str, topic: str, error: LaconicError) -> Note:
        record = self._ledger[device]
        if record.last_seen:
            self._ledger.put(msgspec.structs.replace(record, dropped=record.dropped + 1))
        return Note(
            "dropped",
            {"device": device, "topic": topic[:200], "error": type(error).__name__, "why": str(error)},
        )

    def _state(self, device: str, state: State, now: float) -> list[Effect]:
        topics.check_name(state.cohort, "cohort")
        self._ledger.seen(device, state, now)
        effects: list[Effect] = [
            Note("state", {"device": device, "online": state.online, "charge": state.charge})
        ]
        if state.cohort != self._campaign.cohort:
            return effects
        if self._round.phase is Phase.WAITING:
            return effects + self._try_open(now)
        if self._round.phase is not Phase.COLLECTING:
            return effects
        if state.online:
            effects += self._welcome(device, now)
        elif self._book.awaits(device):
            self._book.expected.discard(device)
            effects += self._step(rounds.Left(), now)
        return effects

    def _welcome(self, device: str, now: float) -> list[Effect]:
        """A device has come while a round is open: expect it if it is chosen, and tell it if needed."""
        effects: list[Effect] = []
        if device not in self._book.expected:
            if device not in self._choose([device]):
                return []
            self._book.expected.add(device)
            effects += self._step(rounds.Joined(), now)
        if self._campaign.targeted and self._book.awaits(device):
            effects += self._offer([device])
        return effects

    def _fin(self, device: str, update: str, payload: bytes, now: float) -> list[Effect]:
        record, task = self._ledger[device], ""
        if update in (record.last_update, self._book.committed.get(device)):
            self._inbox.discard(device)
            note = Note("duplicate", {"device": device, "update": update})
            return [note, _ack(device, update, Fate.COMMITTED)]
        if update == record.last_rejected:
            self._inbox.discard(device)
            return [_ack(device, update, Fate.REJECTED, why="rejected before")]
        try:
            # A promise that cannot be read is answered too: its device would repeat it for ever.
            fin = decode_message(Fin, payload)
            task = fin.task
            if not record.last_seen and task != self._progress.task:
                # Nobody has told us whose device it is, and it does not work for us: not ours to answer.
                return self._reject(device, update, _not_this_task(task, self._progress.task))[:1]
            self._ledger.admit(device)
            self._check_admissible(device, update, fin)
            if missing := self._inbox.missing(device, update, fin):
                named = missing[:_MAX_MISSING_NAMED]
                return [_ack(device, update, Fate.MISSING, missing=named)]
            frame = self._inbox.take(device, fin)
            change = tuple(pieces(frame, self._schema, limit_bytes=self._dense_bytes))
            self._book.fold.check(change, fin.weight)
        except LaconicError as e:
            effects = self._reject(device, update, e)
            if task not in ("", self._progress.task):
                effects += self._current(device)
            if task == self._progress.task and self._book.awaits(device):
                # It has answered, if badly: waiting for it would hold the round.
                self._book.expected.discard(device)
                effects += self._step(rounds.Left(), now)
            return effects
        return self._commit(device, update, fin, frame, change, now)

    def _check_admissible(self, device: str, update: str, fin: Fin) -> None:
        if update != (expected := update_id(device, fin.task, fin.base, fin.sha256)):
            raise Malformed("id of an update", value=update, limit=expected)
        if self._round.phase is not Phase.COLLECTING or fin.task != self._progress.task:
            raise _not_this_task(fin.task, self._progress.task)
        if fin.base != self._registry.current.name:
            raise RemoteProtocolError("base of an update", value=fin.base, limit=self._registry.current.name)
        if device in self._book.committed:
            raise RemoteProtocolError(
                "second update of a device in one round", value=device, limit=self._book.committed[device]
            )

    def _reject(self, device: str, update: str, error: LaconicError) -> list[Effect]:
        self._inbox.discard(device)
        record = self._ledger[device]
        if record.last_seen:
            self._ledger.put(
                msgspec.structs.replace(record, rejected=record.rejected + 1, last_rejected=update)
            )
        fields = {"device": device, "update": update, "error": type(error).__name__, "why": str(error)}
        return [Note("rejected", fields), _ack(device, update, Fate.REJECTED, why=str(error)[:500])]

    def _commit(
        self, device: str, update: str, fin: Fin, frame: bytes, change: Sequence[Piece], now: float
    ) -> list[Effect]:
        was_heard, was_expected = self._book.heard(device), device in self._book.expected
        self._book.commit(device, update, change, fin.weight)
        self._ledger.timed(device, seconds=fin.seconds, samples=fin.weight)
        record = self._ledger[device]
        self._ledger.put(
            msgspec.structs.replace(
                record,
                last_update=update,
                last_round=self._round.number,
                committed=record.committed + 1,
                last_seen=now,
            )
        )
        saved = Committed(update, device, fin.weight, frame)
        effects: list[Effect] = [
            Save({f"update/{device}": msgspec.msgpack.encode(saved), **self._ledger.unsaved()}),
            _ack(device, update, Fate.COMMITTED),
            notes.committed(self._round.number, device, update, fin, frame_bytes=len(frame)),
        ]
        if not was_expected:
            effects += self._step(rounds.Joined(), now)
        if not was_heard:
            effects += self._step(rounds.Reported(), now)
        return effects

    def _skip(self, device: str, skip: Skip, now: float) -> list[Effect]:
        if self._round.phase is not Phase.COLLECTING or skip.task != self._progress.task:
            late = Note("late", {"device": device, "task": skip.task, "why": skip.why})
            return [late, *self._current(device)] if self._ledger[device].last_seen else [late]
        if self._book.heard(device):
            return []
        self._ledger.admit(device)
        was_expected = device in self._book.expected
        self._book.stay_silent(device, skip.weight)
        self._ledger.timed(device, seconds=skip.seconds, samples=skip.weight)
        record = self._ledger[device]
        self._ledger.put(msgspec.structs.replace(record, skipped=record.skipped + 1, last_seen=now))
        fields = {"round": self._round.number, "device": device, **msgspec.structs.asdict(skip)}
        effects: list[Effect] = [Note("skipped", fields)]
        if not was_expected:
            effects += self._step(rounds.Joined(), now)
        return effects + self._step(rounds.Reported(), now)

    # --- rounds

    def _step(self, given: rounds.Input, now: float) -> list[Effect]:
        self._round, action = rounds.step(self._campaign.plan, self._round, given, now)
        match action:
            case Action.OPEN:
                return self._open(now)
            case Action.CLOSE:
                return self._close(now)
            case Action.EXTEND:
                note = Note("extended", {"round": self._round.number, "reported": self._round.reported})
                return [note, *self._ask_more(now)]
            case Action.FINISH:
                return [Note("finished", {"rounds": self._round.number})]
            case None if isinstance(given, rounds.TimedOut):
                return self._try_open(now)
            case None:
                return []

    def _try_open(self, now: float) -> list[Effect]:
        here = online(self._ledger, self._campaign.cohort)
        return self._step(rounds.Present(len(here)), now) if here else []

    def _choose(self, among: Iterable[str]) -> list[str]:
        c = self._campaign
        records = [self._ledger[name] for name in among]
        able = [r for r in records if selection.refusal(r, c.eligibility, c.budget) is None]
        # In a cohort's offer the budgets of the ledger cannot exclude anyone: the device's own limits do.
        return selection.chosen(able if c.targeted else records, self._progress.task, self._progress.share)

    def _open(self, now: float) -> list[Effect]:
        base = self._registry.current
        task = task_id(self._campaign.fleet, self._round.number, base.name)
        c, here = self._campaign, online(self._ledger, self._campaign.cohort)
        self._progress = Progress(
            number=self._round.number, open=True, opened_at=now, task=task, share=c.share
        )
        chosen = self._choose(r.name for r in here)
        while len(chosen) < min(c.plan.min_reports, len(here)) and self._widen():
            chosen = self._choose(r.name for r in here)
        self._progress = msgspec.structs.replace(self._progress, expected=chosen)
        self._book = OpenRound(self._schema.size, chosen)
        effects: list[Effect] = [
            Save({"progress": msgspec.msgpack.encode(self._progress), **self._ledger.unsaved()}),
            Note(
                "opened",
                {"round": self._round.number, "task": task, "version": base.version, "asked": len(chosen)},
            ),
            *self._offer(chosen),
        ]
        for _ in chosen:
            effects += self._step(rounds.Joined(), now)
        return effects

    def _widen(self) -> bool:
        """Double the share; False when everybody is asked already."""
        share = self._progress.share
        self._progress = msgspec.structs.replace(self._progress, share=min(1.0, 2 * max(share, 0.01)))
        return share < 1.0

    def _current(self, device: str) -> list[Effect]:
        """Tell a device that has answered a task of the past what there is to do now, if anything."""
        work = self._round.phase is Phase.COLLECTING and self._book.awaits(device)
        return self._offer([device], work=work, direct=True)

    def _ask_more(self, now: float) -> list[Effect]:
        """Too few have reported: ask a larger share, and those who owe an answer once more, by name.

        The hash would choose the same few for ever, and an offer may have been lost or displaced.
        """
        wider = self._widen()
        here = [r.name for r in online(self._ledger, self._campaign.cohort)]
        new = [name for name in self._choose(here) if name not in self._book.expected]
        owing = [name for name in here if self._book.awaits(name)]
        self._book.expected.update(new)
        effects = self._offer(new) if new or wider else []
        effects += self._offer(owing, direct=True)
        for _ in new:
            effects += self._step(rounds.Joined(), now)
        return effects

    def _offer(self, devices: list[str], *, work: bool = True, direct: bool = False) -> list[Effect]:
        """The open round's task, to the cohort or (`direct`, or in a targeted campaign) to `devices`.

        Without `work` it is word of the newest model.
        """
        c, progress, base = self._campaign, self._progress, self._registry.current
        offer = offer_of(c, progress, self._round.number, base, bundle=self._bundle, work=work)
        if direct or (c.targeted and work):
            return [Send(topics.device_task(name), encode(offer)) for name in devices]
        return [Send(topics.cohort_task(c.cohort), encode(offer), retain=True)]

    def _close(self, now: float) -> list[Effect]:
        """Compute the next version away from the event loop, from values that no later message changes."""
        c, registry = self._campaign, self._registry
        if not self._book.committed:
            # Nobody had anything to say: the next round starts from the same version.
            return self._end_round({}, [], now)
        mean = self._book.fold.mean()
        weights, residual, seed = registry.weights, registry.residual, registry.current.version + 1
        schema, evaluate, full = self._schema, self._evaluate, registry.wants_full()

        def compute() -> Version:
            return advance(
                weights,
                residual,
                mean,
                schema,
                codec=c.delta_codec,
                server_learning_rate=c.server_learning_rate,
                seed=seed,
                full=full,
                evaluate=evaluate,
            )

        return [Compute("advance", compute)]

    def _advanced(self, result: object, now: float) -> list[Effect]:
        if isinstance(result, Exception):
            # Nothing is lost: the updates are in the store, and a restart comes back to this point.
            raise result
        assert isinstance(result, Version)
        taken: dict[str, bytes | None] = {f"update/{device}": None for device in self._book.committed}
        if result.digest == self._registry.current.weights:
            # A version is known by its weights: one that changed nothing would be its own parent.
            return self._end_round({**self._registry.keep(result), **taken}, [], now)
        entries = self._registry.add(
            result,
            now,
            round_number=self._round.number,
            updates=len(self._book.committed),
            silent=self._book.silent,
            samples=self._book.fold.weight,
        )
        publication = [*self._registry.publish_newest(result), notes.version(self._registry.current)]
        return self._end_round({**entries, **taken}, publication, now)

    def _end_round(
        self, entries: dict[str, bytes | None], publication: list[Effect], now: float
    ) -> list[Effect]:
        """One `Save` takes the folded updates out and the new version in; only then is it published."""
        closed = notes.closed(self._round.number, self._book, seconds=now - self._progress.opened_at)
        due = self._progress.opened_at + self._campaign.plan.interval_s
        if not self._book.fold.weight:
            # Nobody has worked (no battery, no data): asking again at once would not help them.
            due = max(due, now + min(_NOBODY_WORKED_S, self._campaign.plan.deadline_s))
        self._book = OpenRound(self._schema.size)
        after = self._step(rounds.Advanced(), now)
        self._progress = Progress(
            number=self._round.number, opened_at=self._progress.opened_at, finished=self.finished
        )
        if self._round.phase is Phase.WAITING and due > now:
            self._round = replace(self._round, deadline=due)
        entries |= {"progress": msgspec.msgpack.encode(self._progress), **self._ledger.unsaved()}
        effects = [Save(entries), *publication, closed, *after]
        if self.finished:
            return effects + self._offer([], work=False)
        opened = self._try_open(now)
        if not opened and not self._campaign.targeted:
            # Whoever comes before the next round must not work for the last one.
            effects.append(Send(topics.cohort_task(self._campaign.cohort), b"", retain=True))
        return effects + opened


def _not_this_task(found: str, expected: str) -> RemoteProtocolError:
    return RemoteProtocolError("task", value=found, limit=expected, remedy="its round is over")


def _ack(device: str, update: str, fate: Fate, *, missing: Sequence[int] = (), why: str = "") -> Effect:
    return Send(topics.ack(device), encode(Ack(update, fate, list(missing), why)))
