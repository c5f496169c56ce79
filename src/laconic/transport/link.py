"""The seam between the driver and a broker: what a link takes, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from laconic.node import Will


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The broker has accepted the connection."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The connection is gone; the link goes on trying by itself."""

    why: str
    refused: bool = False
    """Whether the broker has answered, and does not let us in."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message; `receipt` goes back to `acknowledge` once its effects are durable."""

    topic: str
    payload: bytes
    receipt: int


PING_SHARE: Final = 3 / 4
"""After this part of its keep-alive an idle connection is pinged."""

LinkEvent: TypeAlias = LinkUp | LinkDown | Message


@dataclass(frozen=True, slots=True)
class WireBytes:
    """Bytes over this link since it was made, as its socket counts them.

    `measured` is True where the kernel counted them (everything above TCP, encryption and handshakes
    included), False where they are the sum of the packets' own sizes.
    """

    up: int
    down: int
    measured: bool


class Link(Protocol):
    """One client's connection to a broker; reconnects by itself."""

    async def open(self, will: Will | None) -> None:
        """Begin to connect; `next_event` brings `LinkUp` when it is done."""
        ...

    async def close(self) -> None:
        """Publish the will ourselves (a polite goodbye makes the broker forget it), disconnect and stop."""
        ...

    async def next_event(self) -> LinkEvent:
        """The next thing that happened, in order."""
        ...

    def pending(self) -> bool:
        """Whether `next_event` would return at once."""
        ...

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Send; dropped when there is no connection. Raises `LimitExceeded` over the packet limit."""
        ...

    def subscribe(self, filters: tuple[str, ...]) -> None:
        """Subscribe at QoS 1; dropped when there is no connection."""
        ...

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        """Give up subscriptions; dropped when there is no connection."""
        ...

    def acknowledge(self, receipt: int) -> None:
        """Tell the broker that a message has been dealt with."""
        ...

    def wire_bytes(self) -> WireBytes:
        """The bytes counted so far."""
        ...
