"""Training that has been stopped between two steps: what is kept of it, and until when it is kept."""

from __future__ import annotations

from typing import Final

import msgspec

from laconic.edge_sdk.learner import Measured
from laconic.edge_sdk.records import UNREADABLE
from laconic.edge_sdk.work import Begun, Halted
from laconic.node import Effect, Save, StoreView
from laconic.protocol.messages import Offer

_LOOK_S: Final = 2.0
"""How often a device that waits looks whether it may go on."""
_HOLD_S: Final = 60.0
"""A training that is held up for longer is given up: its round has better things to do than to wait."""
_KEY: Final = "checkpoint"


class _Saved(msgspec.Struct, frozen=True):
    """A learner's checkpoint, and what had been found out by then."""

    task: str
    learner: bytes
    seconds: float
    loss: float | None = None
    accuracy: float | None = None


class Pausing:
    """One training at a time, over pauses and restarts."""

    def __init__(self) -> None:
        self._saved: _Saved | None = None
        self._held_since: float | None = None

    def restore(self, store: StoreView, *, answered: str) -> list[str]:
        """Take up what an earlier life has written down; names what is damaged.

        The learner's own part has a checksum, which is looked at when it goes on. What is of a task that has
        been `answered` stays on the disk until the next is written over it.
        """
        raw = store.get(_KEY)
        try:
            saved = None if raw is None else msgspec.msgpack.decode(raw, type=_Saved)
        except UNREADABLE:
            return [_KEY]
        self._saved = None if saved is None or saved.task == answered else saved
        return []

    def begun(self, offer: Offer) -> Begun:
        """How far the work on an offer has come."""
        s = self._saved
        if s is None or s.task != offer.task:
            return Begun()
        return Begun(s.learner, None if s.loss is None else Measured(s.loss, s.accuracy), s.seconds)

    def keep(self, offer: Offer, halted: Halted, seconds: float) -> Effect:
        """Write down how far an offer's work has come, after `seconds` more of it."""
        base, before = halted.base, self.begun(offer).seconds
        loss, accuracy = (None, None) if base is None else (base.loss, base.accuracy)
        self._saved = _Saved(offer.task, halted.checkpoint, before + seconds, loss, accuracy)
        return Save({_KEY: msgspec.msgpack.encode(self._saved)})

    def forget(self) -> list[Effect]:
        """The work is done, or given up."""
        was, self._saved, self._held_since = self._saved, None, None
        return [] if was is None else [Save({_KEY: None})]

    # --- held up

    def hold(self, now: float) -> float | None:
        """Work may not go on at `now`: when to look again, None if it has waited long enough."""
        self._held_since = now if self._held_since is None else self._held_since
        return None if now - self._held_since >= _HOLD_S else now + _LOOK_S

    def release(self) -> None:
        """Work goes on."""
        self._held_since = None
