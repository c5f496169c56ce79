"""When to ask again: after a wait that doubles as long as nothing comes."""

from __future__ import annotations


class Backoff:
    """The moment of the next attempt, and how long to wait for the one after it."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._wait_s = first_s
        self.at: float | None = None
        """When to ask again; None while nothing is waited for."""

    def reset(self) -> None:
        """Something has come: the next wait is a short one."""
        self._wait_s = self._first_s

    def arm(self, now: float) -> None:
        """Ask again after the present wait."""
        self.at = now + self._wait_s

    def lengthen(self, now: float) -> None:
        """Ask again after the present wait, and after twice as long from then on."""
        self.arm(now)
        self._wait_s = min(2 * self._wait_s, self._most_s)

    def disarm(self) -> None:
        """Nothing is waited for any more."""
        self.at = None
