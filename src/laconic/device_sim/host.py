"""What a world remembers of a host: little, as long as nothing has happened to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from laconic.device_sim.body import Body
from laconic.device_sim.computing import Failures, Speed
from laconic.device_sim.links import Connection, Lane
from laconic.device_sim.parking import Parked
from laconic.device_sim.signals import Signal
from laconic.errors import LocalProtocolError
from laconic.node import Node
from laconic.storage import MemoryStore, Store


@dataclass(slots=True)
class Host:
    """A machine with one process, a disk and a link."""

    name: str
    make: Callable[[], Node]
    connection: Connection
    speed: Speed
    key: int
    """Of the host's own random numbers."""
    body: Body | None = None
    presence: Signal | None = None
    """Above 0 while the host may run; None: always."""
    failures: Failures | None = None
    store: Store = field(default_factory=MemoryStore)
    process: Node | Parked | None = None
    life: int = 0
    linked: bool = False
    link: int = 0
    """Which of its connections it has."""
    up: Lane | None = None
    down: Lane | None = None
    up_free_at: float = 0.0
    down_free_at: float = 0.0
    heard_at: float = 0.0
    """When something last passed."""
    wake_queued: float | None = None
    watched_at: float | None = None
    """When its battery is looked at."""
    effects: int = 0
    jobs: int = 0
    away_until: float = 0.0
    """It does not start before, whoever comes or charges it."""
    crash_at_effect: int | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    ip_bytes_up: int = 0
    ip_bytes_down: int = 0

    @property
    def runs(self) -> bool:
        """Whether it has a process."""
        return self.process is not None

    @property
    def node(self) -> Node | None:
        """Its process, which is taken back if it had been put away."""
        if isinstance(self.process, Parked):
            self.process = self.process.woken()
        return self.process

    def park(self) -> None:
        """Put its process away, unless it holds just now what cannot be written down."""
        node = self.node
        if node is not None:
            with suppress(LocalProtocolError):
                self.process = Parked(node)

    @property
    def may_run(self) -> bool:
        """Whether there is power."""
        return self.body is None or self.body.on
