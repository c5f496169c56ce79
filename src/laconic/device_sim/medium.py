"""A medium that several links share: its capacity is divided equally among the transfers under way.

Processor sharing in virtual time: while n transfers run, each gets capacity/n, so that one of s bytes that
begins at virtual time v ends at v + s, where dv/dt = capacity/n. A link has one transfer at a time each way.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from math import inf

from laconic.errors import ConfigError

Done = Callable[[], None]


class Share:
    """One direction of a medium."""

    __slots__ = ("_capacity", "_heap", "_last", "_queues", "_sequence", "_virtual")

    def __init__(self, bytes_per_s: float) -> None:
        if not 0 < bytes_per_s < inf:
            raise ConfigError("bytes a second of a medium", value=bytes_per_s, limit="above 0")
        self._capacity = bytes_per_s
        self._virtual = self._last = 0.0
        self._heap: list[tuple[float, int, str]] = []
        self._queues: dict[str, deque[tuple[float, Done]]] = {}
        self._sequence = 0

    def enter(self, who: str, size: float, done: Done, now: float) -> None:
        """Pass `size` bytes of a link; `done` is called when they have passed."""
        self._advance(now)
        queue = self._queues.setdefault(who, deque())
        queue.append((size, done))
        if len(queue) == 1:
            self._begin(who, size)

    def leave(self, who: str, now: float) -> None:
        """The link is gone, and with it what it has not passed yet."""
        self._advance(now)
        if self._queues.pop(who, None):
            self._heap = [entry for entry in self._heap if entry[2] != who]
            heapq.heapify(self._heap)

    def next_at(self) -> float:
        """When the next transfer ends if no other begins; infinity without any."""
        if not self._heap:
            return inf
        return self._last + max(0.0, self._heap[0][0] - self._virtual) * len(self._heap) / self._capacity

    def finish(self, now: float) -> None:
        """End what is due at `now`, which `next_at` has told."""
        due = self.next_at()
        if due > now:
            return
        end, _, who = heapq.heappop(self._heap)
        # Not by the clock: what is due ends exactly, whatever the rounding of its moment.
        self._virtual, self._last = max(self._virtual, end), max(self._last, now)
        queue = self._queues[who]
        _, done = queue.popleft()
        if queue:
            self._begin(who, queue[0][0])
        else:
            del self._queues[who]
        done()

    def _begin(self, who: str, size: float) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (self._virtual + size, self._sequence, who))

    def _advance(self, now: float) -> None:
        if self._heap and now > self._last:
            self._virtual += (now - self._last) * self._capacity / len(self._heap)
        self._last = max(self._last, now)


class Medium:
    """A cell or an access point."""

    __slots__ = ("down", "up")

    def __init__(self, up_bytes_per_s: float, down_bytes_per_s: float) -> None:
        self.up, self.down = Share(up_bytes_per_s), Share(down_bytes_per_s)
