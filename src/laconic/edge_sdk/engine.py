"""The device as a Node: offers in, updates out.

One task at a time: fetch the model, train, pass the gate, send, wait for the coordinator's word. Whatever the
coordinator is not known to have stays in the residual, so that nothing a device learnt is lost.

What comes after what is decided here. `Listening` hears offers, `Screening` judges them, `Fetching` brings
the model, `Working` trains, `Delivery` brings the answer to the coordinator; `Bookkeeping` counts what it
costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from laconic.edge_sdk.backoff import Backoff
from laconic.edge_sdk.bookkeeping import Bookkeeping
from laconic.edge_sdk.delivery import Delivery
from laconic.edge_sdk.download import Whole
from laconic.edge_sdk.fetching import Arrival, Fetching
from laconic.edge_sdk.learner import Learner, Measured
from laconic.edge_sdk.listening import Listening
from laconic.edge_sdk.notes import dropped
from laconic.edge_sdk.offers import Offers
from laconic.edge_sdk.presence import birth, will
from laconic.edge_sdk.purse import NOTHING_YET
from laconic.edge_sdk.records import ENTRIES, Held, restore
from laconic.edge_sdk.retained import Retained
from laconic.edge_sdk.screening import Screening
from laconic.edge_sdk.sensors import NoSensors, Sensors
from laconic.edge_sdk.settings import DeviceSettings
from laconic.edge_sdk.work import Halted, Outcome, codec_of, gate_of
from laconic.edge_sdk.working import Working
from laconic.errors import DataError, LaconicError, Malformed, WireError
from laconic.node import (
    Computed,
    Connected,
    Effect,
    Event,
    Note,
    Received,
    Save,
    Started,
    StoreView,
    Will,
    Woke,
)
from laconic.protocol import topics
from laconic.protocol.messages import Ack, Offer, decode

MOST_ENDS: Final = 3
"""Lives in a row that may end in the work on one task: whatever ends them (a kill for want of memory, a
reboot), the next one goes on without that task."""

__all__ = ["DeviceEngine", "DeviceSettings", "Phase"]


class Phase(Enum):
    """What the device is doing."""

    IDLE = "idle"
    FETCHING = "fetching"
    APPLYING = "applying"
    TRAINING = "training"
    PAUSED = "paused"
    UPLOADING = "uploading"


class DeviceEngine:
    """Takes part in rounds. See `laconic.node.Node`."""

    def __init__(self, settings: DeviceSettings, learner: Learner, sensors: Sensors | None = None) -> None:
        topics.check_name(settings.name, "device")
        topics.check_name(settings.cohort, "cohort")
        self._settings, self._learner = settings, learner
        self._sensors = sensors or NoSensors()
        self._phase = Phase.IDLE
        self._offers = Offers("")
        self._backoff = Backoff(settings.retry_s, settings.retry_most_s)
        self._retained = Retained(learner.schema)
        self._books = books = Bookkeeping(settings, self._sensors)
        self._listening = Listening(settings, books)
        self._screening = Screening(settings, learner, self._sensors, books)
        self._fetching = Fetching(learner, settings.key, self._backoff, books, self._screening)
        self._working = Working(settings.name, learner, books, self._retained)
        self._delivery = Delivery(settings, learner, self._backoff, books, self._retained)

    # --- Node

    @property
    def will(self) -> Will:
        return will(self._settings)

    @property
    def wake_at(self) -> float | None:
        return min((at for at in (self._backoff.at, self._books.period_at) if at is not None), default=None)

    @property
    def phase(self) -> Phase:
        """What the device is doing."""
        return self._phase

    @property
    def model(self) -> Held:
        """The newest whole model on the device."""
        return self._fetching.held

    @property
    def private(self) -> bytes:
        """What the learner kept of its last training."""
        return self._retained.private

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        effects = self._react(event, now)
        return [*self._books.cover(effects, self._fetching.left_bytes, now), *effects]

    def _react(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Started(store):
                return self._start(store, now)
            case Connected():
                return self._connected(now)
            case Received(topic, payload):
                try:
                    return self._receive(topic, payload, now)
                except LaconicError as e:
                    return [dropped(topic, e)]
            case Computed("apply", result):
                return self._applied(result, now)
            case Computed("train", result, seconds):
                return self._trained(result, seconds, now)
            case Woke():
                return self._woke(now)
            case _:
                return ()

    # --- life

    def _start(self, store: StoreView, now: float) -> list[Effect]:
        learner = self._learner
        restored = restore(store, learner.schema, bundle=learner.bundle, initial=learner.initial)
        self._fetching.restore(store, restored.held)
        self._retained.restore(restored)
        self._delivery.restore(restored.outbox, now)
        self._offers = Offers(restored.diary.answered)
        self._books.begin(restored.diary, restored.booked, now)
        self._books.write_down(echo=self._retained.echo_note)
        if restored.outbox is not None:
            self._phase = Phase.UPLOADING
        damaged = [*restored.damaged, *self._working.restore(store, answered=restored.diary.answered)]
        useless = ENTRIES if restored.foreign else ENTRIES.intersection(damaged)
        # What the life before had booked is in the diary now.
        saved = {**dict.fromkeys((*useless, "booked")), "diary": self._books.diary_bytes(now)}
        return [Save(saved), *([Note("damaged", {"what": damaged})] if damaged else [])]

    def _connected(self, now: float) -> list[Effect]:
        self._fetching.disconnected()
        born = birth(self._settings, self._learner.samples, self._sensors.read(now))
        effects = [self._listening.connected(now, lost=self._fetching.lost), born]
        if self._phase in (Phase.FETCHING, Phase.UPLOADING):
            self._backoff.reset()
            effects += self._retry(now)
        return effects

    def _receive(self, topic: str, payload: bytes, now: float) -> list[Effect]:
        match address := topics.parse(topic):
            case topics.CohortTask() | topics.DeviceTask():
                if not payload:
                    self._offers.withdraw()
                    return []
                direct = isinstance(address, topics.DeviceTask)
                return self._heard(decode(Offer, payload), now, direct=direct)
            case topics.CohortModel():
                return self._pointed(decode(Offer, payload), now) if payload else []
            case topics.Ack():
                return self._acknowledged(decode(Ack, payload), now)
            case topics.ManifestOf() | topics.BlobChunk():
                return self._piece(topic, payload, now)
            case _:
                raise Malformed("topic", value=topic, limit="topics of the coordinator downwards")

    def _woke(self, now: float) -> list[Effect]:
        effects = self._listening.new_period(now)
        if self._backoff.at is None or now < self._backoff.at:
            return effects
        self._fetching.stalled()
        return effects + self._retry(now)

    def _retry(self, now: float) -> list[Effect]:
        """No answer in time: ask again, less and less often."""
        self._backoff.lengthen(now)
        match self._phase:
            case Phase.UPLOADING:
                return self._delivery.announce(now)
            case Phase.FETCHING if not self._fetching.affordable(now):
                return self._refuse("budget", now)
            case Phase.FETCHING:
                return self._fetching.ask_again(now)
            case Phase.PAUSED:
                return self._go_on(now)
            case _:
                self._backoff.disarm()
                return []

    # --- offers

    def _heard(self, offer: Offer, now: float, *, direct: bool) -> list[Effect]:
        # Before it is queued: an offer that fails when its turn comes would take the effects of the event
        # that it was waiting for along.
        codec_of(offer), gate_of(offer)
        if self._books.resting(now):
            return []
        self._books.hear(offer, now)
        if not self._books.affords(NOTHING_YET, now):
            return self._out_of_means(offer, now)
        return [] if self._offers.displaced(offer.task, direct=direct) else self._offered(offer, now)

    def _out_of_means(self, offer: Offer, now: float) -> list[Effect]:
        """Less is left than is to be set aside: refuse, if that can be paid for, and listen no more."""
        asked = self._screening.chosen(offer) and offer.task != self._books.diary.answered
        if self._phase is Phase.IDLE and asked and self._books.affords_refusal(now):
            self._offers.current = offer
            return self._refuse("budget", now)
        note = Note("not fetched", {"version": offer.version, "why": "budget"})
        return [note, *self._rest(now), Save({"diary": self._books.diary_bytes(now)})]

    def _offered(self, offer: Offer, now: float) -> list[Effect]:
        if offer.task == self._books.diary.answered:
            return self._delivery.skip_again()
        current = self._offers.current
        if current is not None and (offer.task, offer.work) == (current.task, current.work):
            # Word of a model carries the task that its first round will have: that is not the same offer.
            return []
        if self._phase is Phase.IDLE:
            return self._begin(offer, now)
        self._offers.waiting = offer
        # A fetch for a round that is over is wasted; training is not: its change is sent late, where late
        # updates are taken, or goes into the residual. One that is held up has no change to send.
        if self._phase is Phase.PAUSED:
            return [*self._working.give_up(), *self._idle(now)]
        return self._idle(now) if self._phase is Phase.FETCHING else []

    def _pointed(self, offer: Offer, now: float) -> list[Effect]:
        """Word of the newest model, which lies at the broker whether or not there is a coordinator."""
        if not self._listening.wants_model(now):
            return []
        self._books.hear(offer, now)
        if not self._books.affords(NOTHING_YET, now) or offer.model == self.model.name:
            # An offer of work will be refused in words, which is what its round waits for.
            return self._listening.found()
        self._listening.point_to(offer)
        return self._fetch_first(now) if self._phase is Phase.IDLE else []

    def _fetch_first(self, now: float) -> list[Effect]:
        offer = self._listening.take_pointer(now)
        return [] if offer is None else self._begin(offer, now)

    def _begin(self, offer: Offer, now: float) -> list[Effect]:
        self._offers.current = offer
        self._books.begin_task(now)
        held = self.model.name
        if not offer.work and offer.model == held:
            return self._idle(now)
        if offer.work and not self._screening.chosen(offer):
            return [Note("not selected", {"round": offer.round}), *self._idle(now)]
        if why := self._screening.unfit(offer, held, now):
            return self._refuse(why, now)
        if offer.model == held:
            return self._train(offer, now)
        self._phase = Phase.FETCHING
        return self._fetching.begin(offer, now)

    def _refuse(self, why: str, now: float) -> list[Effect]:
        """Do not take the current offer."""
        offer = self._offers.current
        assert offer is not None
        if not offer.work:
            # Word of a model that cannot be paid for would come again with each version.
            deaf = self._listening.found() if why == "budget" else []
            return [Note("not fetched", {"version": offer.version, "why": why}), *deaf, *self._idle(now)]
        return self._skip(offer, why, now)

    def _idle(self, now: float) -> list[Effect]:
        """Nothing under way any more: take the offer that has come meanwhile."""
        self._phase = Phase.IDLE
        effects = self._fetching.stop(now)
        offer = self._offers.take_waiting()
        return effects + (self._offered(offer, now) if offer is not None else self._fetch_first(now))

    def _rest(self, now: float) -> list[Effect]:
        """Hear no more offers until there is something to be spent again."""
        offer = self._offers.current
        need = NOTHING_YET if offer is None else self._screening.need(offer, 0)
        self._offers.withdraw()
        return self._listening.rest(need, now)

    # --- a task

    def _piece(self, topic: str, payload: bytes, now: float) -> list[Effect]:
        effects, arrival = self._fetching.take(topic, payload, now)
        if arrival is Arrival.DEAR:
            return effects + self._refuse("budget", now)
        if arrival is Arrival.WHOLE:
            self._phase = Phase.APPLYING
        return effects

    def _applied(self, result: object, now: float) -> list[Effect]:
        offer, overtaken = self._offers.current, self._offers.waiting is not None
        assert offer is not None
        if isinstance(result, Whole):
            effects = [*self._fetching.hold(result), *self._listening.found()]
            return effects + (self._idle(now) if overtaken or not offer.work else self._train(offer, now))
        effects = self._fetching.discard(result)
        if isinstance(result, MemoryError) and not overtaken:
            return effects + self._refuse("memory", now)
        if overtaken or not isinstance(result, WireError):
            return effects + self._idle(now)
        self._phase = Phase.FETCHING
        self._fetching.begin_from_nothing(offer, now)
        return effects

    def _train(self, offer: Offer, now: float) -> list[Effect]:
        need = self._screening.need(offer, 0)
        if not self._books.affords(need, now):
            return self._refuse("budget", now)
        self._phase = Phase.TRAINING
        self._backoff.disarm()
        saved, ends = self._books.begin_work(offer.task, need.joules, now)
        if ends >= MOST_ENDS:
            self._books.end_work()
            why = f"{ends} lives have ended in this work"
            return [Note("failed", {"round": offer.round, "why": why}), *self._refuse("failed", now)]
        return [*saved, *self._working.begin(offer, self.model, now)]

    def _halted(self, offer: Offer, halted: Halted, seconds: float, now: float) -> list[Effect]:
        """Training was told to yield, or it was time to write down how far it has come."""
        if self._offers.waiting is not None:
            return [*self._working.give_up(), *self._idle(now)]
        return [self._working.keep(offer, halted, seconds), *self._go_on(now)]

    def _go_on(self, now: float) -> list[Effect]:
        """Train on, or wait until the owner's limits and the task's terms allow it; but not for ever."""
        offer = self._offers.current
        assert offer is not None
        why = self._screening.forbidden(offer, now)
        if why is None:
            return self._train(offer, now)
        again_at = self._working.hold(now)
        if again_at is None:
            return self._skip(offer, why, now)
        note = Note("paused", {"round": offer.round, "why": why})
        effects: list[Effect] = [] if self._phase is Phase.PAUSED else [note]
        self._phase, self._backoff.at = Phase.PAUSED, again_at
        return effects

    def _trained(self, result: object, seconds: float, now: float) -> list[Effect]:
        offer, overtaken = self._offers.current, self._offers.waiting is not None
        assert offer is not None
        self._sensors.worked(seconds)
        self._books.end_work()
        if isinstance(result, Halted):
            return self._halted(offer, result, seconds, now)
        seconds += self._working.seconds_before(offer)
        if isinstance(result, Measured):
            if overtaken:
                return [*self._working.give_up(), *self._idle(now)]
            return self._skip(offer, "measured", now, result, seconds)
        if not isinstance(result, Outcome):
            note = Note("failed", {"round": offer.round, "why": f"{type(result).__name__}: {result}"})
            return [note, *self._skip(offer, _why(result), now)]
        self._working.learn(offer, result)
        frame = result.frame
        need = NOTHING_YET if frame is None else self._books.upload_need(len(frame))
        dear = not self._books.affords(need, now)
        if overtaken and (frame is None or dear or not self._offers.late_is_taken()):
            # The round is over: what was learnt goes along with the next update.
            saved = Save({**self._retained.learnt(), "diary": self._books.diary_bytes(now)})
            return [saved, *self._working.give_up(), *self._idle(now)]
        if frame is None or dear:
            return self._skip(offer, "gate" if frame is None else "budget", now, result, seconds)
        self._offers.answered(offer.task)
        self._phase = Phase.UPLOADING
        return [*self._delivery.send(offer, result, frame, seconds, now), *self._working.give_up()]

    def _skip(
        self,
        offer: Offer,
        why: str,
        now: float,
        result: Outcome | Measured | None = None,
        seconds: float = 0.0,
    ) -> list[Effect]:
        """Answer that nothing is sent."""
        self._books.end_task(now)
        rest = self._rest(now) if why in ("budget", "quiet") else []
        rest_s = self._books.rest_s(now) if rest else 0.0
        self._offers.answered(offer.task)
        said = self._delivery.skip(offer, why, now, result=result, seconds=seconds, rest_s=rest_s)
        return [*said, *self._working.give_up(), *rest, *self._idle(now)]

    def _acknowledged(self, ack: Ack, now: float) -> list[Effect]:
        if not self._delivery.awaits(ack):
            return []
        effects = self._delivery.acknowledged(ack, now)
        return effects if self._delivery.outbox is not None else effects + self._idle(now)


def _why(result: object) -> str:
    """What the coordinator is told of work that has come to nothing."""
    if isinstance(result, DataError):
        return "data"
    return "memory" if isinstance(result, MemoryError) else "failed"
