"""The seam between decisions and the world: a `Node` turns events into effects, a driver does the rest.

A Node has no clock, no socket and no thread. A driver owns those; there are two, one over MQTT and the real
clock (`laconic.transport.driver`), one under a virtual clock (`laconic.device_sim.world`). Both keep this
contract, and one test suite holds both to it:

* effects are carried out in order, those of an event before those of the next;
* what is saved is read back from the store at once, and is durable before any later send leaves;
* the MQTT acknowledgement of a received message goes out after all effects of its event;
* messages that wait may be handled as a group, before what the first of them saved is durable: it becomes so
  with what the others saved, all or nothing. Any other event, and a `Compute`, finds everything durable;
* an overdue wake comes before the next message;
* `handle` never blocks: long work is a `Compute`;
* `now` never goes back;
* a `Send` or `Subscribe` made while there is no connection is dropped, not queued: `Connected` tells the
  node to say again what still matters, so that being offline costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, TypeAlias


class StoreView(Protocol):
    """Read access to what earlier lives of this node saved."""

    def get(self, key: str) -> bytes | None:
        """The blob under `key`, or None."""
        ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with `prefix`, in sorted order."""
        ...


@dataclass(frozen=True, slots=True)
class Started:
    """The process has begun, or begun again after a crash; the node restores itself from `store`."""

    store: StoreView


@dataclass(frozen=True, slots=True)
class Connected:
    """The link to the broker is up; subscriptions and unacknowledged sends of earlier links are gone."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message has arrived. Its content is hostile until proven otherwise."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Computed:
    """A `Compute` has ended: `result` is what it returned, or the exception that it raised."""

    job: str
    result: object
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Woke:
    """`wake_at` has passed."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """Whoever is in charge of the process asks for something; what it may be is the node's to say.

    A node that cannot do it raises a `LaconicError` and has changed nothing; the driver passes it on.
    """

    order: object


Event: TypeAlias = Started | Connected | Received | Computed | Woke | Ordered


@dataclass(frozen=True, slots=True)
class Send:
    """Publish. QoS 1 unless the loss of the message does not matter."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe to each filter at QoS 1, for as long as this connection lasts."""

    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Give up subscriptions."""

    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compute:
    """Run `run()` away from the event loop; `Computed` brings its result.

    `samples` is how many training samples the work touches: a virtual clock turns it into seconds.
    """

    job: str
    run: Callable[[], object]
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Save:
    """Write all of `entries` or none of them, durably; None deletes a key."""

    entries: Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Note:
    """Tell whoever watches (log, display, test) that something happened. Changes nothing."""

    kind: str
    fields: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


Effect: TypeAlias = Send | Subscribe | Unsubscribe | Compute | Save | Note


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for a node that vanishes."""

    topic: str
    payload: bytes
    retain: bool = True


class Node(Protocol):
    """A state machine that a driver runs."""

    @property
    def will(self) -> Will | None:
        """The last will, fixed for the node's life."""
        ...

    @property
    def wake_at(self) -> float | None:
        """When the node wants `Woke`, in seconds on the driver's clock; None for never."""
        ...

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        """React to one event at `now` (seconds on the driver's clock, never going back)."""
        ...
