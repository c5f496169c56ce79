"""Updates too long to be honest are refused before they are saved, by what was usual in earlier rounds.

The usual is the median over rounds of each round's median norm. It stays the same while a round is open, so
that who is refused does not depend on who came first, and rounds of fewer than three updates leave it alone:
one device sets no scale, neither a long one that lets everything pass nor a short one that lets nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Final

import msgspec

from laconic.errors import LimitExceeded

REMEMBERED_ROUNDS: Final = 16
_LEAST_UPDATES: Final = 3
_LEAST_SEEN: Final = 5
"""Updates over all rounds, below which nothing is refused."""


class NormHistory(msgspec.Struct, frozen=True):
    """The last rounds' median norms, the oldest first, and how many updates each is of."""

    medians: list[float] = []
    counts: list[int] = []

    @property
    def usual(self) -> float | None:
        """The norm that is to be expected; None while too little is known."""
        if sum(self.counts) < _LEAST_SEEN:
            return None
        return statistics.median(self.medians) or None

    def after(self, norms: Iterable[float]) -> NormHistory:
        """With one more round: the norms of what was offered in it, refused for their length or not.

        The refused count too: when most devices have truly changed, the usual follows them.
        """
        seen = sorted(norms)
        if len(seen) < _LEAST_UPDATES:
            return self
        return NormHistory(
            [*self.medians, statistics.median(seen)][-REMEMBERED_ROUNDS:],
            [*self.counts, len(seen)][-REMEMBERED_ROUNDS:],
        )

    @property
    def sound(self) -> bool:
        """Whether this can have been written here."""
        return len(self.medians) == len(self.counts) and all(
            math.isfinite(m) and m >= 0 for m in self.medians
        )


NOTHING_YET: Final = NormHistory()


def check(norm: float, history: NormHistory, multiple: float) -> None:
    """Refuse a norm over `multiple` times the usual; 0 refuses none.

    Raises `LimitExceeded`.
    """
    usual = history.usual
    if multiple and usual is not None and norm > multiple * usual:
        raise LimitExceeded(
            "norm of an update",
            value=norm,
            limit=f"{multiple * usual:g}, {multiple:g} times the usual",
            remedy="the sender's training has diverged",
        )
