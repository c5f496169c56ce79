"""Virtual time: one queue of what is going to happen, in an order that is always the same."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

WAKE: Final = 0
EVENT: Final = 1

Action = Callable[[], None]


class Clock:
    """Ordered by time, then wakes before all else, then order of arrival."""

    __slots__ = ("_queue", "_sequence", "events", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        """How many have happened."""
        self._queue: list[tuple[float, int, int, Action]] = []
        self._sequence = 0

    def push(self, time_s: float, priority: int, action: Action) -> None:
        """Do something at a moment; at once if that has passed."""
        self._sequence += 1
        heapq.heappush(self._queue, (time_s, priority, self._sequence, action))

    def at(self, time_s: float, action: Action) -> None:
        """Do something at a moment, after the wakes that are due then."""
        self.push(time_s, EVENT, action)

    def run(self, until_s: float, stop: Callable[[], bool]) -> None:
        """Let time pass until `until_s`, or until `stop()` is true, or until nothing is left to happen."""
        queue = self._queue
        while queue and queue[0][0] <= until_s and not stop():
            time_s, _, _, action = heapq.heappop(queue)
            self.now = max(self.now, time_s)
            self.events += 1
            action()
