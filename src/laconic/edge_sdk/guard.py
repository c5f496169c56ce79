"""Between a device's work and its owner: whether it may go on, and how soon it notices that it may not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from laconic.edge_sdk.policy import Limits, refusal
from laconic.edge_sdk.sensors import Readings, Sensors
from laconic.protocol.messages import Eligibility

_LOOK_S: Final = 0.1
"""How often work looks up: it ends within half a second of a change, a stretch of training included."""
_LINGER_S: Final = 0.5
"""How long a program counts as busy after it last said so. Work that yields is written down: were it to go on
at once, a program that is busy ten times a second would wear out a card with checkpoints."""
_ANYTHING: Final = Eligibility()


class Guard:
    """Sensors that also tell what the owner's program wants, for the event loop and the thread that works.

    Work asks `should_yield` between its stretches; the engine, which decides, reads the same sensors. Both
    are told that the program is busy once `stop` has been called, so that work ends and none begins.
    """

    def __init__(
        self,
        sensors: Sensors,
        limits: Limits,
        zone: str,
        *,
        busy: Callable[[], bool] = lambda: False,
        slice_s: float = 120.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`busy`: whether the program wants the machine for itself; one that raises is taken for busy.

        `slice_s`: how long work goes on at most before it is written down.
        """
        self._sensors, self._limits, self._zone = sensors, limits, zone
        self._busy, self._slice_s, self._clock = busy, slice_s, clock
        self._one_at_a_time = threading.Lock()
        self._stopped = False
        self._wanted_at = float("-inf")
        self._began = self._looked = 0.0
        self._forbidden = False

    def measured(self, now: float) -> Readings:
        """What the sensors tell, whatever the program wants; from any thread."""
        with self._one_at_a_time:
            return self._sensors.read(now)

    def read(self, now: float) -> Readings:
        found = self.measured(now)
        return replace(found, busy=True) if self._stopped or self._wanted() else found

    def worked(self, seconds: float) -> None:
        with self._one_at_a_time:
            self._sensors.worked(seconds)

    def stop(self) -> None:
        """The process is about to end."""
        self._stopped = True

    # --- the thread that works

    def begin(self) -> None:
        """A slice of work begins."""
        self._began, self._looked, self._forbidden = time.monotonic(), 0.0, False

    def must_yield(self) -> bool:
        """Whether the owner's limits forbid to go on."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked, at = now, self._clock()
            why = refusal(self._limits, _ANYTHING, self.read(at), now=at, zone=self._zone)
            self._forbidden = why is not None
        return self._forbidden or self._stopped

    def should_yield(self) -> bool:
        """Whether work that can be written down is to end: its slice is over, or it must."""
        return time.monotonic() - self._began >= self._slice_s or self.must_yield()

    def _wanted(self) -> bool:
        try:
            wanted = bool(self._busy())
        except (Exception, asyncio.CancelledError):  # whatever the program's own code raises
            wanted = True
        now = time.monotonic()
        if wanted:
            self._wanted_at = now
        return now - self._wanted_at < _LINGER_S
