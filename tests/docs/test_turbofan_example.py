"""examples/turbofan: what the four strategies must give whatever the engines are, and the fleet's books."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "turbofan"
sys.path.insert(0, str(EXAMPLE))

import operation  # noqa: E402
import strategies  # noqa: E402
from strategies import Prices  # noqa: E402

LIVES = st.lists(st.integers(2, 400), min_size=1, max_size=12)
PRICES = Prices()


def books(stops: list[strategies.Stop], *, cycles: int = 30_000, seed: int = 0) -> operation.Books:
    drawn = operation.draws(len(stops), 2, cycles, np.random.default_rng(seed))
    return operation.operate(stops, drawn, cycles, PRICES)


@settings(max_examples=40, deadline=None)
@given(LIVES)
def test_run_to_failure_wastes_nothing_and_always_fails(lives: list[int]) -> None:
    found = books([strategies.run_to_failure(life) for life in lives])
    assert (found.services, found.wasted) == (0, 0)
    assert found.failures >= 2 * (30_000 // (max(lives) + PRICES.failure_cycles))


@settings(max_examples=40, deadline=None)
@given(LIVES)
def test_service_after_each_cycle_never_fails(lives: list[int]) -> None:
    found = books([strategies.at_interval(life, 1) for life in lives])
    assert found.failures == 0
    assert found.services == 2 * ((30_000 + PRICES.service_cycles) // (1 + PRICES.service_cycles))


@settings(max_examples=60, deadline=None)
@given(LIVES, st.integers(1, 500))
def test_an_engine_runs_for_its_interval_or_its_life(lives: list[int], interval: int) -> None:
    for life in lives:
        stop = strategies.at_interval(life, interval)
        assert stop.cycles + stop.left == life
        assert stop.failed == (life <= interval)


@settings(max_examples=60, deadline=None)
@given(LIVES, st.integers(1, 60))
def test_who_knows_what_is_left_never_fails_and_wastes_the_margin(lives: list[int], margin: int) -> None:
    for life in lives:
        stop = strategies.by_prediction(np.arange(life - 1, -1, -1.0), margin)
        assert not stop.failed
        assert stop.left == min(margin, life - 1)


def test_a_model_that_says_nothing_lets_engines_fail() -> None:
    assert strategies.by_prediction(np.full(7, np.nan), 10) == strategies.run_to_failure(7)
    # What it says when the engine has failed comes too late.
    assert strategies.by_prediction(np.array([50.0, 40.0, 0.0]), 10).failed


@settings(max_examples=40, deadline=None)
@given(LIVES, st.integers(1, 400), st.sampled_from([0.0, 1e4, 6e4, 1e6]))
def test_no_interval_would_have_earned_more(lives: list[int], other: int, failure: float) -> None:
    prices = replace(PRICES, failure=failure)

    def earned(interval: int) -> float:
        return strategies.profit([strategies.at_interval(life, interval) for life in lives], prices)

    best = earned(strategies.best_interval(lives, prices))
    # Few intervals are tried: as long as no further engine fails, a longer one always earns more.
    assert best >= earned(other) - 1e-9


@settings(max_examples=40, deadline=None)
@given(LIVES, st.lists(st.integers(1, 500), min_size=12, max_size=12))
def test_books_add_up(lives: list[int], intervals: list[int]) -> None:
    stops = [strategies.at_interval(life, n) for life, n in zip(lives, intervals, strict=False)]
    found = books(stops)
    assert found.calendar == 60_000
    assert 0 < found.ran <= found.calendar
    standing = found.services * PRICES.service_cycles + found.failures * PRICES.failure_cycles
    # Places that stand still when the books are closed have not stood for all of it.
    assert found.calendar - 2 * PRICES.failure_cycles <= found.ran + standing <= found.calendar + 120
    assert found.cost(PRICES) == found.services * 10_000 + found.failures * 60_000
    assert found.profit(PRICES) == found.ran * 250 - found.cost(PRICES)
    assert found + found == operation.Books(*(2 * v for v in vars(found).values()))
    assert found.wasted <= found.services * max(s.left for s in stops)


@pytest.mark.parametrize("interval", [1, 120, 190, 500])
def test_a_long_operation_earns_what_renewal_theory_says(interval: int) -> None:
    """The reward of a renewal process per unit of time tends to the mean reward over the mean duration."""
    lives = np.random.default_rng(1).integers(130, 360, 20).tolist()
    stops = [strategies.at_interval(life, interval) for life in lives]
    found = books(stops, cycles=1_000_000)
    assert found.profit(PRICES) / found.calendar == pytest.approx(strategies.profit(stops, PRICES), abs=3.0)


def test_the_same_seed_gives_all_strategies_the_same_engines() -> None:
    a: Any = operation.draws(5, 3, 1000, np.random.default_rng(4))
    b: Any = operation.draws(5, 3, 1000, np.random.default_rng(4))
    assert (a == b).all()
