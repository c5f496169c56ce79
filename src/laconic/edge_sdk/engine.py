"""The device as a Node: offers in, updates out.

One task at a time: fetch the model, train, pass the gate, send, wait for the coordinator's word. Whatever the
coordinator is not known to have stays in the residual, so that nothing a device learnt is lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from laconic.budget.costs import MANIFEST_BYTES, learn, message_bytes
from laconic.budget.spending import Totals, increase
from laconic.compression import decode
from laconic.compression.echo import NO_ECHO, Echo
from laconic.compression.feedback import Residual
from laconic.edge_sdk import policy
from laconic.edge_sdk.accounts import Accounts, totals_of
from laconic.edge_sdk.download import Download, saved_pieces
from laconic.edge_sdk.learner import Learner, Measured
from laconic.edge_sdk.offers import Offers
from laconic.edge_sdk.policy import Limits, allowance_of
from laconic.edge_sdk.purse import NOTHING_YET, Need, Purse, with_lost_bookings
from laconic.edge_sdk.records import (
    Diary,
    Held,
    Outbox,
    forget,
    note_of,
    restore,
    save_held,
    save_private,
    save_vector,
)
from laconic.edge_sdk.report import promise, skip, upload
from laconic.edge_sdk.sensors import NoSensors, Sensors
from laconic.edge_sdk.work import (
    Assignment,
    Outcome,
    codec_of,
    feedback_of,
    gate_of,
    measure,
    perform,
    settled,
    touched,
)
from laconic.errors import LaconicError, Malformed, WireError
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
    Unsubscribe,
    Will,
    Woke,
)
from laconic.protocol import topics
from laconic.protocol.chunks import DEFAULT_CHUNK_BYTES
from laconic.protocol.identity import selected, short, weights_hash
from laconic.protocol.messages import (
    Ack,
    Fate,
    Offer,
    State,
    encode,
)
from laconic.protocol.messages import decode as decode_message


class Phase(Enum):
    """What the device is doing."""

    IDLE = "idle"
    FETCHING = "fetching"
    APPLYING = "applying"
    TRAINING = "training"
    UPLOADING = "uploading"


@dataclass(frozen=True)
class DeviceSettings:
    """Who the device is and how it behaves on the wire."""

    name: str
    cohort: str = "default"
    limits: Limits = field(default_factory=Limits)
    zone: str = ""
    """Where its days and months begin: see `laconic.budget.calendar`."""
    standing_bytes_per_s: float = 0.0
    """What being connected costs while nothing is said."""
    key: bytes | None = None
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    retry_s: float = 10.0
    """First wait for an answer; doubles up to `retry_most_s`."""
    retry_most_s: float = 300.0
    software: str = ""


class DeviceEngine:
    """Takes part in rounds. See `laconic.node.Node`."""

    def __init__(self, settings: DeviceSettings, learner: Learner, sensors: Sensors | None = None) -> None:
        topics.check_name(settings.name, "device")
        topics.check_name(settings.cohort, "cohort")
        self._settings, self._learner = settings, learner
        self._sensors = sensors or NoSensors()
        self._schema = learner.schema
        self._phase = Phase.IDLE
        self._offers = Offers("")
        self._download: Download | None = None
        self._subscribed: tuple[str, ...] = ()
        self._retry_at: float | None = None
        self._retry_s = settings.retry_s
        self._store: StoreView
        self._diary = Diary()
        self._accounts: Accounts
        self._purse = Purse(
            settings.name,
            allowance_of(settings.limits),
            zone=settings.zone,
            chunk_bytes=settings.chunk_bytes,
            standing_bytes_per_s=settings.standing_bytes_per_s,
        )
        self._period_at: float | None = None
        """When the device's day ends, if it matters, or its rest."""
        self._began: Totals | None = None
        """What had been spent when the task at work was begun."""
        self._trained_on = 0
        """Samples of the task at work, epochs counted."""
        self._held = Held(0, short(weights_hash(learner.initial, learner.schema)), learner.initial)
        self._residual: Residual
        self._echo: Echo = NO_ECHO
        self._private = b""
        self._outbox: Outbox | None = None
        self._pointer: Offer | None = None
        """Where the newest model is, for a device that has fetched none."""
        self._lost = False
        """Whether that is wanted: once in a device's life."""

    # --- Node

    @property
    def will(self) -> Will:
        state = State(online=False, cohort=self._settings.cohort)
        return Will(topics.state(self._settings.name), encode(state))

    @property
    def wake_at(self) -> float | None:
        if self._retry_at is None or self._period_at is None:
            return self._period_at if self._retry_at is None else self._retry_at
        return min(self._retry_at, self._period_at)

    @property
    def phase(self) -> Phase:
        """What the device is doing."""
        return self._phase

    @property
    def model(self) -> Held:
        """The newest whole model on the device."""
        return self._held

    @property
    def private(self) -> bytes:
        """What the learner kept of its last training."""
        return self._private

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Started(store):
                return self._start(store, now)
            case Connected():
                return self._connected(now)
            case Received(topic, payload):
                try:
                    return self._receive(topic, payload, now)
                except LaconicError as e:
                    return [Note("dropped", _dropped(topic, e))]
            case Computed("apply", result):
                return self._applied(result, now)
            case Computed("train", result, seconds):
                return self._trained(result, seconds, now)
            case Woke():
                effects = self._new_period(now)
                if self._retry_at is None or now < self._retry_at:
                    return effects
                if self._download is not None:
                    self._download.stalled()
                return effects + self._retry(now)
            case _:
                return ()

    # --- life

    def _start(self, store: StoreView, now: float) -> list[Effect]:
        self._store = store
        restored = restore(store, self._schema, bundle=self._learner.bundle, initial=self._learner.initial)
        self._diary, self._held = restored.diary, restored.held
        self._residual, self._echo, self._outbox = restored.residual, restored.echo, restored.outbox
        self._private = restored.private
        self._offers = Offers(self._diary.answered)
        self._diary = with_lost_bookings(self._diary, now, self._settings.zone)
        self._accounts = Accounts(self._sensors, self._diary, self._settings.zone)
        self._mind_the_period(now)
        if self._outbox is not None:
            self._phase = Phase.UPLOADING
            self._retry_at = now
        effects: list[Effect] = [Save(forget(self._diary))] if restored.foreign else []
        if restored.damaged:
            effects.append(Note("damaged", {"what": list(restored.damaged)}))
        return effects

    def _connected(self, now: float) -> list[Effect]:
        name = self._settings.name
        readings = self._sensors.read(now)
        state = State(
            online=True,
            cohort=self._settings.cohort,
            samples=self._learner.samples,
            charge=readings.charge,
            charging=readings.charging,
            metered=readings.metered,
            software=self._settings.software,
            zone=self._settings.zone,
        )
        self._subscribed = ()
        heard = () if self._diary.rest_until > now else self._offer_topics()
        self._lost = bool(heard) and self._store.get("model") is None
        if self._lost:
            heard = (*heard, topics.cohort_model(self._settings.cohort))
        effects: list[Effect] = [
            Subscribe((*heard, topics.ack(name))),
            Send(topics.state(name), encode(state), retain=True),
        ]
        if self._phase in (Phase.FETCHING, Phase.UPLOADING):
            self._retry_s = self._settings.retry_s
            effects += self._retry(now)
        return effects

    def _receive(self, topic: str, payload: bytes, now: float) -> list[Effect]:
        match address := topics.parse(topic):
            case topics.CohortTask() | topics.DeviceTask():
                if not payload:
                    return self._withdrawn()
                offer = decode_message(Offer, payload)
                # Before it is queued: an offer that fails when its turn comes would take the effects of the
                # event that it was waiting for along.
                codec_of(offer), gate_of(offer)
                direct = isinstance(address, topics.DeviceTask)
                if self._diary.rest_until > now:
                    return []
                self._purse.hear(offer)
                self._mind_the_period(now)
                if not self._affords(NOTHING_YET, now):
                    return self._out_of_means(offer, now)
                return [] if self._offers.displaced(offer.task, direct=direct) else self._offered(offer, now)
            case topics.CohortModel():
                return self._pointed(decode_message(Offer, payload), now) if payload else []
            case topics.Ack():
                return self._answered(decode_message(Ack, payload), now)
            case topics.ManifestOf() | topics.BlobChunk():
                return self._piece(topic, payload, now)
            case _:
                raise Malformed("topic", value=topic, limit="topics of the coordinator downwards")

    # --- offers

    def _offered(self, offer: Offer, now: float) -> list[Effect]:
        if offer.task == self._diary.answered:
            # Asked again: the answer may have been lost. An update announces itself until it is acknowledged.
            return [self._say_skip(self._diary.skip)] if self._diary.skip else []
        current = self._offers.current
        if current is not None and (offer.task, offer.work) == (current.task, current.work):
            # Word of a model carries the task that its first round will have: that is not the same offer.
            return []
        if self._phase is Phase.IDLE:
            return self._begin(offer, now)
        self._offers.waiting = offer
        # A fetch for a round that is over is wasted; training is not: its change is sent late, where late
        # updates are taken, or goes into the residual.
        return self._idle(now) if self._phase is Phase.FETCHING else []

    def _pointed(self, offer: Offer, now: float) -> list[Effect]:
        """Word of the newest model, which lies at the broker whether or not there is a coordinator."""
        if not self._lost or self._diary.rest_until > now:
            return []
        self._purse.hear(offer)
        self._mind_the_period(now)
        if not self._affords(NOTHING_YET, now):
            # An offer of work will be refused in words, which is what its round waits for.
            return self._found()
        if offer.model == self._held.name:
            return self._found()
        self._pointer = msgspec.structs.replace(offer, work=False)
        return self._fetch_first(now) if self._phase is Phase.IDLE else []

    def _found(self) -> list[Effect]:
        """There is a model: from here on offers say what is newer."""
        was, self._lost, self._pointer = self._lost, False, None
        return [Unsubscribe((topics.cohort_model(self._settings.cohort),))] if was else []

    def _fetch_first(self, now: float) -> list[Effect]:
        """Fetch the model that was pointed to, once, if there is none on the device by now."""
        offer, self._pointer = self._pointer, None
        if offer is None or not self._lost or self._diary.rest_until > now:
            return []
        return self._begin(offer, now)

    def _withdrawn(self) -> list[Effect]:
        self._offers.waiting = None
        return []

    def _begin(self, offer: Offer, now: float) -> list[Effect]:
        self._offers.current = offer
        self._began, self._trained_on = totals_of(self._accounts.enter(self._diary, now)), 0
        if not offer.work and offer.model == self._held.name:
            return self._idle(now)
        if offer.work and not selected(self._settings.name, offer.task, offer.share):
            return [Note("not selected", {"round": offer.round}), *self._idle(now)]
        if why := self._unfit(offer, now):
            return self._refuse(why, now)
        if offer.model == self._held.name:
            return self._train(offer, now)
        self._download = self._new_download(offer, only_full=False)
        self._phase = Phase.FETCHING
        self._retry_s = self._settings.retry_s
        return self._follow_download(now)

    def _affords(self, need: Need, now: float) -> bool:
        if not self._purse.limited:
            return True
        self._diary = self._accounts.enter(self._diary, now)
        return self._purse.affords(self._diary, need, metered=self._sensors.read(now).metered, now=now)

    def _out_of_means(self, offer: Offer, now: float) -> list[Effect]:
        """Less is left than is to be set aside: refuse, if that can be paid for, and listen no more."""
        asked = offer.work and selected(self._settings.name, offer.task, offer.share)
        if self._phase is Phase.IDLE and asked and offer.task != self._diary.answered:
            metered = self._sensors.read(now).metered
            if self._purse.affords_refusal(self._diary, metered=metered, now=now):
                self._offers.current = offer
                return self._refuse("budget", now)
        note = Note("not fetched", {"version": offer.version, "why": "budget"})
        return [note, *self._rest(now), Save({"diary": self._diary_bytes(now)})]

    def _task_need(self, offer: Offer, down: int) -> Need:
        """What is ahead of a task with `down` bytes to fetch."""
        return self._purse.task(
            self._diary,
            samples=touched(offer, self._learner.samples) if offer.work else 0,
            down=down,
            fits=codec_of(offer).kind == "deadzone",
        )

    def _book(self, need: Need, now: float) -> list[Effect]:
        """Write down what is about to be spent, where it matters."""
        if not self._purse.limited:
            return []
        self._purse.book(self._diary, need.bytes)
        return [Save({"diary": self._diary_bytes(now, need.joules)})]

    def _refuse(self, why: str, now: float) -> list[Effect]:
        """Do not take the current offer."""
        offer = self._offers.current
        assert offer is not None
        if not offer.work:
            # Word of a model that cannot be paid for would come again with each version.
            deaf = self._found() if why == "budget" else []
            return [Note("not fetched", {"version": offer.version, "why": why}), *deaf, *self._idle(now)]
        return self._skip(offer, why, now)

    def _unfit(self, offer: Offer, now: float) -> str | None:
        if offer.bundle != self._learner.bundle:
            return "model"
        if offer.work and self._learner.samples == 0:
            return "data"
        if why := policy.refusal(
            self._settings.limits,
            offer.eligibility,
            self._sensors.read(now),
            allowance=self._purse.terms,
            now=now,
            zone=self._settings.zone,
        ):
            return why
        # How much is to be fetched is known when the manifest is here.
        down = 0 if offer.model == self._held.name else message_bytes(MANIFEST_BYTES)
        return None if self._affords(self._task_need(offer, down), now) else "budget"

    # --- the model

    def _new_download(self, offer: Offer, *, only_full: bool) -> Download:
        return Download(
            target=offer.model,
            held=self._held.name,
            held_version=self._held.version,
            bundle=self._learner.bundle,
            key=self._settings.key,
            limit_bytes=2 * 4 * self._schema.size + 4096 + 256 * len(self._schema.tensors),
            saved=lambda address: saved_pieces(self._store, address),
            only_full=only_full,
        )

    def _follow_download(self, now: float) -> list[Effect]:
        """Subscribe to what is wanted next, give up what is not wanted any more."""
        wanted = self._download.wanted() if self._download is not None else ()
        gone = tuple(t for t in self._subscribed if t not in wanted)
        new = tuple(t for t in wanted if t not in self._subscribed)
        self._subscribed = wanted
        self._retry_at = now + self._retry_s if wanted else None
        effects: list[Effect] = [Unsubscribe(gone)] if gone else []
        return [*effects, Subscribe(new)] if new else effects

    def _piece(self, topic: str, payload: bytes, now: float) -> list[Effect]:
        download = self._download
        if (
            self._phase is not Phase.FETCHING
            or download is None
            or topic not in self._subscribed
            or not payload
        ):
            return []
        effects: list[Effect] = []
        cost_bytes = download.cost_bytes
        if download.worth_saving():
            address, index = topic.split("/")[-2:]
            effects.append(Save({f"piece/{address}/{int(index):06d}": payload}))
        try:
            fetched = download.take(topic, payload)
        except LaconicError as e:
            # Pieces that do not fit together are forgotten, here and on the disk; there may be another way.
            effects = [Note("dropped", _dropped(topic, e)), Save(dict.fromkeys(self._store.keys("piece/")))]
            return effects + self._follow_download(now)
        self._retry_s = self._settings.retry_s
        if cost_bytes is None:
            offer = self._offers.current
            assert offer is not None
            need = self._task_need(offer, download.left_bytes)
            if not self._affords(need, now):
                return effects + self._refuse("budget", now)
            if download.cost_bytes is not None:
                effects += self._book(Need(download.left_bytes), now)
        if fetched is None:
            return effects + self._follow_download(now)
        self._download = None
        self._phase = Phase.APPLYING
        held, schema = self._held, self._schema
        return [
            *effects,
            *self._follow_download(now),
            Compute("apply", lambda: fetched.apply(held, schema)),
        ]

    def _applied(self, result: object, now: float) -> list[Effect]:
        pieces: dict[str, bytes | None] = dict.fromkeys(self._store.keys("piece/"))
        offer, waiting = self._offers.current, self._offers.waiting
        assert offer is not None
        if not isinstance(result, Held):
            effects: list[Effect] = [Note("dropped", {"topic": "model", "why": str(result)}), Save(pieces)]
            if waiting is not None or not isinstance(result, WireError):
                return effects + self._idle(now)
            # What is held may itself be wrong: once, try from nothing.
            self._phase = Phase.FETCHING
            self._download = self._new_download(offer, only_full=True)
            self._retry_at = now + self._retry_s
            self._retry_s = min(2 * self._retry_s, self._settings.retry_most_s)
            return effects
        self._held = result
        saved = Save({"model": save_held(result, self._schema), **pieces})
        note = Note("model", {"version": result.version, "model": result.name})
        effects = [saved, note, *self._found()]
        if waiting is not None or not offer.work:
            return [*effects, *self._idle(now)]
        return [*effects, *self._train(offer, now)]

    # --- work

    def _train(self, offer: Offer, now: float) -> list[Effect]:
        learner = self._learner
        need = self._task_need(offer, 0)
        if not self._affords(need, now):
            return self._refuse("budget", now)
        self._phase = Phase.TRAINING
        self._retry_at = None
        booked = self._book(Need(0, need.joules), now)
        seed = int.from_bytes(
            hashlib.sha256(f"{self._settings.name}/{offer.task}".encode()).digest()[:8], "big"
        )
        assignment = Assignment(
            offer=offer,
            weights=self._held.weights,
            residual=self._residual,
            gate_state=self._diary.gate,
            codec=codec_of(offer),
            gate=gate_of(offer),
            seed=seed,
            private=self._private,
            feedback=feedback_of(offer),
            echo=self._echo,
            now=now,
            room_bytes=self._purse.frame_room(self._diary, metered=self._sensors.read(now).metered, now=now),
        )
        if not offer.train:
            work = Compute(
                "train", lambda: measure(assignment, learner), samples=touched(offer, learner.samples)
            )
            return [*booked, Note("measuring", {"version": offer.version, "samples": learner.samples}), work]
        return [
            *booked,
            Note("training", {"round": offer.round, "samples": learner.samples}),
            Compute("train", lambda: perform(assignment, learner), samples=touched(offer, learner.samples)),
        ]

    def _trained(self, result: object, seconds: float, now: float) -> list[Effect]:
        offer = self._offers.current
        assert offer is not None
        self._sensors.worked(seconds)
        if isinstance(result, Measured):
            if self._offers.waiting is not None:
                return self._idle(now)
            return self._skip(offer, "measured", now, measured=result, seconds=seconds)
        if not isinstance(result, Outcome):
            note = Note("failed", {"round": offer.round, "why": str(result)})
            return [note, *self._skip(offer, "failed", now)]
        self._residual, self._echo, self._private = result.residual, result.echo, result.private
        self._diary = msgspec.structs.replace(
            self._diary, gate=result.gate_state, residual_version=result.residual.version
        )
        self._trained_on = result.samples * offer.training.epochs
        need = NOTHING_YET if result.frame is None else self._purse.upload(self._diary, len(result.frame))
        dear = not self._affords(need, now)
        if self._offers.waiting is not None and (
            result.frame is None or dear or not self._offers.late_is_taken()
        ):
            # The round is over: what was learnt goes along with the next update.
            saved = Save({**self._learnt(), "diary": self._diary_bytes(now)})
            return [saved, *self._idle(now)]
        if result.frame is None:
            return self._skip(offer, "gate", now, outcome=result, seconds=seconds)
        if dear:
            return self._skip(offer, "budget", now, outcome=result, seconds=seconds)
        self._outbox = promise(
            self._settings.name,
            offer,
            result,
            result.frame,
            chunk_bytes=self._settings.chunk_bytes,
            seconds=seconds,
        )
        self._offers.answered(offer.task)
        self._diary = msgspec.structs.replace(
            self._diary, answered=offer.task, skip=b"", last_sent_bytes=len(result.frame)
        )
        self._phase = Phase.UPLOADING
        self._retry_s = self._settings.retry_s
        self._retry_at = now + self._retry_s
        self._purse.book(self._diary, need.bytes)
        saved = Save(
            {
                "outbox": msgspec.msgpack.encode(self._outbox),
                **self._learnt(),
                "diary": self._diary_bytes(now),
            }
        )
        note = Note("sending", {"round": offer.round, "bytes": len(result.frame), "norm": result.norm})
        return [saved, *self._upload(self._outbox), note]

    def _learnt(self) -> dict[str, bytes | None]:
        """What training changed besides the weights that are sent."""
        private = save_private(self._private) if self._private else None
        return {**self._owed(), "private": private}

    def _owed(self) -> dict[str, bytes | None]:
        """What the coordinator does not have, and what it adds: of one moment, so of one write."""
        echo = self._echo.values
        return {
            "residual": save_vector(self._residual.values),
            "echo": None if echo is None else save_vector(echo),
        }

    def _upload(self, outbox: Outbox, indices: Sequence[int] | None = None) -> list[Effect]:
        s = self._settings
        return upload(s.name, outbox, chunk_bytes=s.chunk_bytes, indices=indices)

    def _answered(self, ack: Ack, now: float) -> list[Effect]:
        if self._outbox is None or ack.update != self._outbox.update:
            return []
        update, frame = self._outbox.update, self._outbox.frame
        match ack.fate:
            case Fate.MISSING:
                self._retry_at = now + self._retry_s
                lacking = min(len(frame), len(ack.missing) * self._settings.chunk_bytes)
                need = self._purse.upload(self._diary, lacking)
                if not self._affords(need, now):
                    return self._postpone(now)
                return [*self._book(need, now), *self._upload(self._outbox, ack.missing)]
            case Fate.COMMITTED:
                said = decode(frame, self._schema, limit_bytes=4 * self._schema.size)
                self._residual, self._echo = settled(self._residual, self._echo, said, ack.folded)
                entries = self._owed()
                note = Note("committed", {"update": update, "bytes": len(frame)})
            case Fate.REJECTED:
                entries = {}
                note = Note("rejected", {"update": update, "why": ack.why})
        self._outbox = None
        self._purse.settle()
        self._learn(now, frame=len(frame))
        saved = Save({"outbox": None, "diary": self._diary_bytes(now), **entries})
        return [saved, note, self._tell(now), *self._idle(now)]

    def _skip(
        self,
        offer: Offer,
        why: str,
        now: float,
        *,
        outcome: Outcome | None = None,
        seconds: float = 0.0,
        measured: Measured | None = None,
    ) -> list[Effect]:
        """Say that nothing is sent, and why; what was learnt stays in the residual."""
        self._learn(now)
        rest = self._rest(now) if why in ("budget", "quiet") else []
        rest_s = max(0.0, self._diary.rest_until - now) if rest else 0.0
        message = skip(
            offer,
            why,
            samples=self._learner.samples,
            outcome=outcome,
            seconds=seconds,
            rest_s=rest_s,
            measured=measured,
        )
        self._offers.answered(offer.task)
        self._diary = msgspec.structs.replace(self._diary, answered=offer.task, skip=message)
        entries: dict[str, bytes | None] = {"diary": self._diary_bytes(now)}
        if outcome is not None:
            entries.update(self._learnt())
        note = Note("skipped", {"round": offer.round, "why": why})
        return [Save(entries), self._say_skip(message), note, self._tell(now), *rest, *self._idle(now)]

    def _say_skip(self, skip: bytes) -> Effect:
        return Send(topics.skip(self._settings.name), skip)

    # --- in between

    def _idle(self, now: float) -> list[Effect]:
        """Nothing under way any more: take the offer that has come meanwhile."""
        self._phase, self._download = Phase.IDLE, None
        effects = self._follow_download(now)
        offer = self._offers.take_waiting()
        return effects + (self._offered(offer, now) if offer is not None else self._fetch_first(now))

    def _retry(self, now: float) -> list[Effect]:
        """No answer in time: ask again, less and less often."""
        self._retry_at = now + self._retry_s
        self._retry_s = min(2 * self._retry_s, self._settings.retry_most_s)
        match self._phase:
            case Phase.UPLOADING if self._outbox is not None and not self._affords(
                self._purse.upload(self._diary, 0), now
            ):
                return self._postpone(now)
            case Phase.FETCHING if self._download is not None and not self._affords(
                Need(self._download.left_bytes), now
            ):
                return self._refuse("budget", now)
            case Phase.UPLOADING:
                # Only the promise: the coordinator names the chunks that it lacks.
                return [] if self._outbox is None else self._upload(self._outbox, ())
            case Phase.FETCHING:
                wait = self._retry_at
                again = (Unsubscribe(self._subscribed),) if self._subscribed else ()
                self._subscribed = ()
                effects = [*again, *self._follow_download(now)]
                self._retry_at = wait
                return effects
            case _:
                self._retry_at = None
                return []

    def _postpone(self, now: float) -> list[Effect]:
        """The update that waits is not announced again before the next day."""
        self._retry_at = self._purse.next_period(now)
        return []

    # --- days

    def _offer_topics(self) -> tuple[str, str]:
        return topics.cohort_task(self._settings.cohort), topics.device_task(self._settings.name)

    def _mind_the_period(self, now: float) -> None:
        """Wake when the day ends, where anything is counted by days, or when the rest does."""
        if self._diary.rest_until > now:
            self._period_at = self._diary.rest_until
        elif self._period_at is None and self._purse.limited:
            self._period_at = self._purse.next_period(now)

    def _new_period(self, now: float) -> list[Effect]:
        """A day has begun: what came before it is counted to the one before, and a rest may be over."""
        if self._period_at is None or now < self._period_at:
            return []
        self._diary = self._accounts.enter(self._diary, now)
        self._period_at = None
        effects: list[Effect] = []
        if 0 < self._diary.rest_until <= now:
            self._diary = msgspec.structs.replace(self._diary, rest_until=0.0)
            effects = [Save({"diary": self._diary_bytes(now)}), Subscribe(self._offer_topics())]
        self._mind_the_period(now)
        return effects

    def _rest(self, now: float) -> list[Effect]:
        """Hear no more offers until there is something to be spent again."""
        need, offer = NOTHING_YET, self._offers.current
        if offer is not None:
            need = self._task_need(offer, 0)
        self._diary = self._accounts.enter(self._diary, now)
        until = self._purse.rests_until(self._diary, need, metered=self._sensors.read(now).metered, now=now)
        self._diary = msgspec.structs.replace(self._diary, rest_until=until)
        self._mind_the_period(now)
        self._offers.waiting = None
        note = Note("rests", {"until": until})
        return [Unsubscribe(self._offer_topics()), *self._found(), note]

    def _learn(self, now: float, *, frame: int | None = None) -> None:
        """The task at work is done: what it has cost tells what the next one will."""
        if self._began is None:
            return
        entered = self._accounts.enter(self._diary, now)
        spent = increase(self._began, totals_of(entered))
        self._diary = msgspec.structs.replace(
            entered, learnt=learn(entered.learnt, spent, samples=self._trained_on, frame=frame)
        )
        self._began = None

    def _tell(self, now: float) -> Effect:
        telemetry = self._accounts.telemetry(self._diary, now)
        return Send(topics.telemetry(self._settings.name), encode(telemetry), qos=0)

    def _diary_bytes(self, now: float, joules: float = 0.0) -> bytes:
        """The diary as it is saved; `joules` are about to be spent."""
        entered = self._accounts.enter(self._diary, now)
        self._diary = msgspec.structs.replace(
            entered,
            echo=note_of(self._echo),
            booked_bytes=self._purse.pending(entered.bytes_up + entered.bytes_down),
            booked_joules=joules,
            booked_metered=self._sensors.read(now).metered,
        )
        return msgspec.msgpack.encode(self._diary)


def _dropped(topic: str, error: LaconicError) -> dict[str, object]:
    """What is said of a message that could not be used."""
    return {"topic": topic[:200], "error": type(error).__name__, "why": str(error)}
