"""When an engine is taken out of service: four strategies, as functions of what an operator knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Prices:
    """What time and work are worth, in dollars, and how long an engine stands still, in cycles.

    The defaults are those of Turbofan Tycoon ("Federated Learning", Cloudera Fast Forward Labs, report FF09,
    2018, chapter 3, "Product: Turbofan Tycoon").
    """

    cycle: float = 250.0
    """Earned by each cycle that an engine runs."""
    service: float = 10_000.0
    failure: float = 60_000.0
    service_cycles: int = 20
    failure_cycles: int = 60


@dataclass(frozen=True)
class Stop:
    """How an engine's time in service ended."""

    cycles: int
    """That it ran, 1 or more."""
    left: int
    """That it would still have run; 0 if it failed."""

    @property
    def failed(self) -> bool:
        """It was run until it broke; else it was serviced in time."""
        return self.left == 0


def run_to_failure(life: int) -> Stop:
    """Corrective maintenance: an engine is repaired when it has broken, after `life` cycles."""
    return Stop(life, 0)


def at_interval(life: int, interval: int) -> Stop:
    """Preventive maintenance: an engine is serviced after `interval` cycles, if it lives longer than that."""
    ran = min(life, interval)
    return Stop(ran, life - ran)


def by_prediction(predicted: Array, margin: float) -> Stop:
    """Predictive maintenance: an engine is serviced once a model gives it `margin` cycles or less.

    `predicted`: cycles that a model thinks are left after each cycle of the engine's life, NaN where it does
    not say; the last is after the engine has failed, and is not asked for.
    """
    life = len(predicted)
    with np.errstate(invalid="ignore"):
        due = np.flatnonzero(predicted[:-1] <= margin)
    return at_interval(life, int(due[0]) + 1) if len(due) else run_to_failure(life)


def best_interval(lives: Sequence[int], prices: Prices) -> int:
    """The interval that would have earned most on engines whose lives are known; the longest life: never.

    Between two lives the best interval is the last moment before the next failure.
    """
    never = max(lives)
    candidates = sorted({max(1, life - 1) for life in lives} | {never})
    return max(candidates, key=lambda interval: profit([at_interval(n, interval) for n in lives], prices))


def profit(stops: Sequence[Stop], prices: Prices) -> float:
    """Dollars for each cycle of the calendar, standing still included, if engines end like this."""
    failures = sum(s.failed for s in stops)
    services = len(stops) - failures
    ran = sum(s.cycles for s in stops)
    earned = ran * prices.cycle - services * prices.service - failures * prices.failure
    return earned / (ran + services * prices.service_cycles + failures * prices.failure_cycles)
