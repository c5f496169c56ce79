"""Bringing a model version to the device: its pieces from the broker, their sum, and where both are kept."""

from __future__ import annotations

from enum import Enum

from laconic.edge_sdk.backoff import Backoff
from laconic.edge_sdk.bookkeeping import Bookkeeping
from laconic.edge_sdk.download import Download, Sum, Whole, download_limit_bytes, saved_pieces
from laconic.edge_sdk.learner import Learner
from laconic.edge_sdk.notes import dropped
from laconic.edge_sdk.purse import Need
from laconic.edge_sdk.records import Held
from laconic.edge_sdk.screening import Screening
from laconic.errors import LaconicError
from laconic.node import Compute, Effect, Note, Save, StoreView, Subscribe, Unsubscribe
from laconic.protocol.identity import weights_hash
from laconic.protocol.messages import Offer


class Arrival(Enum):
    """What a piece has brought."""

    MORE = "more"
    """More is to come."""
    DEAR = "dear"
    """What is still to come cannot be paid for."""
    WHOLE = "whole"
    """All is here; its sum is being computed."""


class Fetching:
    """The model that is held, and the way to the next one: one download at a time."""

    def __init__(
        self,
        learner: Learner,
        key: bytes | None,
        backoff: Backoff,
        books: Bookkeeping,
        screening: Screening,
    ) -> None:
        """`key`: the fleet's, with which manifests are signed."""
        self._schema, self._bundle, self._key = learner.schema, learner.bundle, key
        self._backoff, self._books, self._screening = backoff, books, screening
        self.held = Held(0, weights_hash(learner.initial, learner.schema), learner.initial)
        """The newest whole model on the device."""
        self.subscribed: tuple[str, ...] = ()
        """Topics of pieces, on this connection."""
        self._store: StoreView
        self._offer: Offer
        self._download: Download | None = None

    def restore(self, store: StoreView, held: Held) -> None:
        """Go on with what an earlier life has saved."""
        self._store, self.held = store, held

    @property
    def lost(self) -> bool:
        """Whether no model has been fetched in the life of the disk."""
        return self._store.get("model") is None

    def disconnected(self) -> None:
        """Subscriptions have ended with their connection."""
        self.subscribed = ()

    def begin(self, offer: Offer, now: float) -> list[Effect]:
        """Fetch the model of an offer."""
        self._offer = offer
        self._download = self._way_to(offer, only_full=False)
        self._backoff.reset()
        return self._follow(now)

    def stop(self, now: float) -> list[Effect]:
        """Nothing is to be fetched any more."""
        self._download = None
        return self._follow(now)

    def stalled(self) -> None:
        """Nothing has come in time."""
        if self._download is not None:
            self._download.stalled()

    def affordable(self, now: float) -> bool:
        """Whether what is still to come can be paid for."""
        return self._download is None or self._books.affords(Need(self._download.left_bytes), now)

    @property
    def left_bytes(self) -> int:
        """What is still to come, both ways."""
        return 0 if self._download is None else self._download.left_bytes

    def ask_again(self, now: float) -> list[Effect]:
        """Subscribe anew to what has not come, so that the broker sends it again.

        The moment of the next attempt stays as the caller has set it.
        """
        again = [Unsubscribe(self.subscribed)] if self.subscribed else []
        self.subscribed = ()
        at = self._backoff.at
        effects = [*again, *self._follow(now)]
        self._backoff.at = at
        return effects

    def take(self, topic: str, payload: bytes, now: float) -> tuple[list[Effect], Arrival]:
        """Take a message under a topic that may be wanted."""
        download = self._download
        if download is None or topic not in self.subscribed or not payload:
            return [], Arrival.MORE
        effects: list[Effect] = []
        decided = download.cost_bytes is not None
        if download.worth_saving():
            address, index = topic.split("/")[-2:]
            effects.append(Save({f"piece/{address}/{int(index):06d}": payload}))
        try:
            fetched = download.take(topic, payload)
        except LaconicError as e:
            # Pieces that do not fit together are forgotten, here and on the disk; there may be another way.
            return [dropped(topic, e), Save(self._no_pieces()), *self._follow(now)], Arrival.MORE
        self._backoff.reset()
        if not decided:
            if not self._books.affords(self._screening.need(self._offer, download.left_bytes), now):
                return effects, Arrival.DEAR
            if download.cost_bytes is not None:
                effects += self._books.book(Need(download.left_bytes), now)
        if fetched is None:
            return effects + self._follow(now), Arrival.MORE
        summed = Compute("apply", Sum(fetched, self.held, self._schema))
        return [*effects, *self.stop(now), summed], Arrival.WHOLE

    def hold(self, whole: Whole) -> list[Effect]:
        """The sum is what was promised: it is the model from here on."""
        self.held = held = whole.held
        saved = Save({"model": whole.saved, **self._no_pieces()})
        return [saved, Note("model", {"version": held.version, "model": held.name})]

    def discard(self, error: object) -> list[Effect]:
        """The sum is not what was promised: its pieces are of no use."""
        return [
            Note("dropped", {"topic": "model", "why": f"{type(error).__name__}: {error}"}),
            Save(self._no_pieces()),
        ]

    def begin_from_nothing(self, offer: Offer, now: float) -> None:
        """Fetch a full model, after a wait: what is held may itself be wrong."""
        self._offer = offer
        self._download = self._way_to(offer, only_full=True)
        self._backoff.lengthen(now)

    def _way_to(self, offer: Offer, *, only_full: bool) -> Download:
        return Download(
            target=offer.model,
            held=self.held.name,
            held_version=self.held.version,
            bundle=self._bundle,
            key=self._key,
            limit_bytes=download_limit_bytes(self._schema),
            saved=lambda address: saved_pieces(self._store, address),
            only_full=only_full,
        )

    def _follow(self, now: float) -> list[Effect]:
        """Subscribe to what is wanted next, give up what is not wanted any more."""
        wanted = self._download.wanted() if self._download is not None else ()
        gone = tuple(t for t in self.subscribed if t not in wanted)
        new = tuple(t for t in wanted if t not in self.subscribed)
        self.subscribed = wanted
        if wanted:
            self._backoff.arm(now)
        else:
            self._backoff.disarm()
        effects: list[Effect] = [Unsubscribe(gone)] if gone else []
        return [*effects, Subscribe(new)] if new else effects

    def _no_pieces(self) -> dict[str, bytes | None]:
        return dict.fromkeys(self._store.keys("piece/"))
