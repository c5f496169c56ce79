"""A fleet in operation for a long time: each place for an engine gets another engine whenever one is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from strategies import Array, Prices, Stop


@dataclass(frozen=True)
class Books:
    """What has happened in a fleet. Sums of books are books."""

    calendar: int = 0
    """Cycles that went by, of all places for engines."""
    ran: int = 0
    """Cycles in which an engine ran."""
    services: int = 0
    failures: int = 0
    wasted: int = 0
    """Cycles of life that serviced engines had left."""

    def __add__(self, other: Books) -> Books:
        return Books(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def cost(self, prices: Prices) -> float:
        """Dollars for services and repairs."""
        return self.services * prices.service + self.failures * prices.failure

    def profit(self, prices: Prices) -> float:
        """Dollars earned, less the cost."""
        return self.ran * prices.cycle - self.cost(prices)

    def thousand(self, amount: float) -> float:
        """Of an amount, what falls to a thousand cycles of the calendar."""
        return 1000 * amount / self.calendar if self.calendar else 0.0

    @property
    def wasted_each(self) -> float:
        """Cycles of life wasted, on average, by a service."""
        return self.wasted / self.services if self.services else 0.0


def draws(engines: int, places: int, cycles: int, rng: np.random.Generator) -> Array:
    """Which engine each place gets, one after the other: `(places, more than can be used)`.

    A calendar of `cycles` has at most as many engines, and a strategy that services each after its first
    cycle would come to one every 21; so many are drawn, and begun anew where they are not enough.
    """
    return rng.integers(engines, size=(places, max(1, cycles // 20)))


def operate(stops: Sequence[Stop], drawn: Array, cycles: int, prices: Prices) -> Books:
    """The books after `cycles` of each place, where the engine of a number always ends in service like this.

    A strategy looks at nothing but the engine, so that what becomes of one is known beforehand. Places whose
    last engine still runs when the books are closed have its cycles, and places that stand still do.
    """
    ran = np.array([s.cycles for s in stops])
    failed = np.array([s.failed for s in stops])
    left = np.array([s.left for s in stops])
    span = ran + np.where(failed, prices.failure_cycles, prices.service_cycles)
    books = Books()
    for sequence in drawn:
        # As many as surely fill the calendar.
        taken = np.resize(sequence, cycles // int(span.min()) + 1)
        begins = np.concatenate([[0], np.cumsum(span[taken])])[:-1]
        begun = taken[begins < cycles]
        begins = begins[begins < cycles]
        done = begins + ran[begun] <= cycles
        ended = begun[done]
        books += Books(
            calendar=cycles,
            ran=int(np.minimum(ran[begun], cycles - begins).sum()),
            services=int((~failed[ended]).sum()),
            failures=int(failed[ended].sum()),
            wasted=int(left[ended].sum()),
        )
    return books
