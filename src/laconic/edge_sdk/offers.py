"""Which offer is to be worked on: the newest, and no old one twice."""

from __future__ import annotations

from laconic.protocol.messages import Offer

_REMEMBERED = 32


class Offers:
    """The offer at work and the one that waits."""

    def __init__(self, answered: str) -> None:
        """`answered`: the task that an earlier life answered last."""
        self.current: Offer | None = None
        self.waiting: Offer | None = None
        self._newest = answered
        # Tuples: an empty deque takes half a kilobyte, and a simulator has a hundred thousand devices.
        self._older: tuple[str, ...] = ()
        self._answered: tuple[str, ...] = (answered,)

    def displaced(self, task: str, *, direct: bool) -> bool:
        """Whether a task has had a successor: a duplicate that comes late must not be worked on again.

        A `direct` offer, to this device alone, is displaced only if it has been answered: the coordinator
        asks those again who owe it an answer.
        """
        if task == self._newest:
            return False
        if task in (self._answered if direct else self._older):
            return True
        self._older = (*self._older, self._newest)[-_REMEMBERED:]
        self._newest = task
        return False

    def withdraw(self) -> None:
        """Whatever waits is not to be worked on."""
        self.waiting = None

    def answered(self, task: str) -> None:
        """A task has been answered, by an update or a skip."""
        self._answered = (*self._answered, task)[-_REMEMBERED:]

    def late_is_taken(self) -> bool:
        """Whether an update of the task at work is still of use, now that another offer waits."""
        if self.waiting is None or self.current is None or not self.waiting.work:
            return False
        behind = self.waiting.version - self.current.version
        same = self.waiting.bundle == self.current.bundle
        return same and self.waiting.max_staleness > 0 and 0 <= behind <= self.waiting.max_staleness

    def take_waiting(self) -> Offer | None:
        """The offer that has come meanwhile; nothing is at work or waits any more."""
        offer, self.waiting, self.current = self.waiting, None, None
        return offer
