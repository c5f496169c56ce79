"""What a world remembers of a host: little, as long as nothing has happened to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from laconic.device_sim.body import Body
from laconic.device_sim.computing import Failures, Speed
from laconic.device_sim.links import Connection, Lane
from laconic.device_sim.signals import Signal
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
    node: Node | None = None
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
    crash_at_effect: int | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    ip_bytes_up: int = 0
    ip_bytes_down: int = 0

    @property
    def may_run(self) -> bool:
        """Whether there is power."""
        return self.body is None or self.body.on
