"""What the device listens to: offers, but while it rests, and at first word of the newest model."""

from __future__ import annotations

import msgspec

from laconic.edge_sdk.bookkeeping import Bookkeeping
from laconic.edge_sdk.purse import Need
from laconic.edge_sdk.settings import DeviceSettings
from laconic.node import Effect, Note, Save, Subscribe, Unsubscribe
from laconic.protocol import topics
from laconic.protocol.messages import Offer


class Listening:
    """Subscribes to the topics of offers, and gives them up while nothing can be spent.

    A device that has fetched no model yet is *lost*: it also listens to where the newest one is, which lies
    at the broker whether or not there is a coordinator. Once there is a model, offers say what is newer.
    """

    def __init__(self, settings: DeviceSettings, books: Bookkeeping) -> None:
        self._books = books
        self._offers = (topics.cohort_task(settings.cohort), topics.device_task(settings.name))
        self._model = topics.cohort_model(settings.cohort)
        self._acks = topics.ack(settings.name)
        self._lost = False
        self._pointer: Offer | None = None

    def connected(self, now: float, *, lost: bool) -> Effect:
        """Listen to what there is to hear on a new connection; `lost`: no model is on the disk."""
        heard = () if self._books.resting(now) else self._offers
        self._lost = bool(heard) and lost
        if self._lost:
            heard = (*heard, self._model)
        return Subscribe((*heard, self._acks))

    # --- the first model

    def wants_model(self, now: float) -> bool:
        """Whether word of the newest model is of use."""
        return self._lost and not self._books.resting(now)

    def point_to(self, offer: Offer) -> None:
        """The newest model is this one, to be fetched when there is time."""
        self._pointer = msgspec.structs.replace(offer, work=False)

    def take_pointer(self, now: float) -> Offer | None:
        """The model that was pointed to, once, if there is none on the device by now."""
        offer, self._pointer = self._pointer, None
        return offer if self.wants_model(now) else None

    def found(self) -> list[Effect]:
        """There is a model, or none that can be paid for: no more word of the newest."""
        was, self._lost, self._pointer = self._lost, False, None
        return [Unsubscribe((self._model,))] if was else []

    # --- rest

    def rest(self, need: Need, now: float) -> list[Effect]:
        """Hear no more offers until `need` can be spent; the caller saves the diary."""
        until = self._books.rest(need, now)
        return [Unsubscribe(self._offers), *self.found(), Note("rests", {"until": until})]

    def new_period(self, now: float) -> list[Effect]:
        """A day may have begun, and a rest be over."""
        if not self._books.new_period(now):
            return []
        return [Save({"diary": self._books.diary_bytes(now)}), Subscribe(self._offers)]
