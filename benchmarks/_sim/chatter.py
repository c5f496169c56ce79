"""Nodes that do what a fleet's do, and next to nothing else: the engine itself is what is measured."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.node import (
    Compute,
    Computed,
    Connected,
    Effect,
    Event,
    Received,
    Send,
    Started,
    Subscribe,
    Will,
    Woke,
)


class Chatter:
    """Wakes at every interval, computes, sends what it has, and is answered."""

    def __init__(self, name: str, interval_s: float, size: int) -> None:
        self._topic = f"up/{name}"
        self._filter = f"dn/{name}"
        self._interval_s, self._payload = interval_s, bytes(size)
        self.wake_at: float | None = None

    @property
    def will(self) -> Will | None:
        return None

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Started():
                self.wake_at = now + self._interval_s
            case Connected():
                return (Subscribe((self._filter,)),)
            case Woke():
                self.wake_at = now + self._interval_s
                return (Compute("work", lambda: None),)
            case Computed():
                return (Send(self._topic, self._payload),)
        return ()


class Listener:
    """Answers everybody."""

    wake_at: float | None = None
    will: Will | None = None

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Connected():
                return (Subscribe(("up/+",)),)
            case Received(topic, _):
                return (Send(f"dn/{topic[3:]}", b"thanks"),)
        return ()
