"""What each strategy comes to in a fleet: every operator's books, under prices and a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from operation import Books, draws, operate
from operators import Fleet, Operator, lives_of
from strategies import Prices, Stop, at_interval, best_interval, by_prediction, run_to_failure

STRATEGIES = ("run to failure", "preventive", "predictive, alone", "predictive, federated")
"""The four; the others are bounds."""
BOUNDS = ("preventive, all histories", "predictive, pooled", "all-knowing")


@dataclass(frozen=True)
class Setting:
    """How a fleet is operated."""

    prices: Prices = field(default_factory=Prices)
    margin: float = 10.0
    """Cycles: an engine is serviced once a model gives it no more."""
    cycles: int = 50_000
    """Of the calendar."""
    places: int = 4
    """Engines that an operator runs at once."""


@dataclass(frozen=True)
class Outcome:
    """What a strategy came to; money is for a thousand cycles of the calendar of one place for an engine."""

    failed: float
    """Share of engines that were run until they broke."""
    wasted: float
    """Cycles of life that a serviced engine had left."""
    cost: float
    profit: float
    worst: float
    """The profit of the operator that earned least."""


def compare(fleet: Fleet, setting: Setting, *, seed: int) -> dict[str, Outcome]:
    """Each strategy in the same fleet: whatever it does, a place gets the same engines in turn."""
    books: dict[str, list[Books]] = {name: [] for name in (*STRATEGIES, *BOUNDS)}
    for number, operator in enumerate(fleet.operators):
        rng = np.random.default_rng([seed, number])
        drawn = draws(len(fleet.lives), setting.places, setting.cycles, rng)
        for name, stops in decided(fleet, operator, setting).items():
            books[name].append(operate(stops, drawn, setting.cycles, setting.prices))
    return {name: _outcome(found, setting.prices) for name, found in books.items()}


def decided(fleet: Fleet, operator: Operator, setting: Setting) -> dict[str, list[Stop]]:
    """How each engine ends in an operator's service, by strategy.

    "preventive, all histories" chooses its interval by the lives that all operators have seen;
    "all-knowing" services every engine a cycle before it would fail.
    """
    lives, prices, margin = fleet.lives, setting.prices, setting.margin
    own = best_interval(operator.seen, prices)
    known = best_interval(lives_of(fleet.operators), prices)
    return {
        "run to failure": [run_to_failure(n) for n in lives],
        "preventive": [at_interval(n, own) for n in lives],
        "predictive, alone": [by_prediction(p, margin) for p in operator.predicted],
        "predictive, federated": [by_prediction(p, margin) for p in fleet.predicted["federated"]],
        "preventive, all histories": [at_interval(n, known) for n in lives],
        "predictive, pooled": [by_prediction(p, margin) for p in fleet.predicted["pooled"]],
        "all-knowing": [at_interval(n, n - 1) for n in lives],
    }


def _outcome(books: Sequence[Books], prices: Prices) -> Outcome:
    fleet = sum(books, Books())
    engines = fleet.failures + fleet.services
    return Outcome(
        failed=fleet.failures / engines if engines else 0.0,
        wasted=fleet.wasted_each,
        cost=fleet.thousand(fleet.cost(prices)),
        profit=fleet.thousand(fleet.profit(prices)),
        worst=min(b.thousand(b.profit(prices)) for b in books),
    )
