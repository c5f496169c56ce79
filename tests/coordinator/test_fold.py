"""Laws of the fold: exact, whatever the order; bounded, whatever the number."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.compression import Piece, whole
from laconic.coordinator.fold import MAX_PRODUCT, MAX_UPDATES, Fold
from laconic.errors import LimitExceeded, NonFinite

VALUES = st.floats(-64.0, 64.0, width=32) | st.floats(-(2.0**-20), 2.0**-20, width=32)
UPDATES = st.lists(
    st.tuples(st.lists(VALUES, min_size=3, max_size=3), st.integers(1, 2**14)), min_size=1, max_size=30
)


def folded(updates: list[tuple[list[float], int]], silent: int = 0) -> Fold:
    fold = Fold(3)
    for values, weight in updates:
        update = np.array(values, np.float32)
        fold.check(whole(update), weight)
        fold.add(whole(update), weight)
    fold.add_silent(silent)
    return fold


@given(UPDATES, st.randoms(use_true_random=False), st.integers(0, 2**20))
def test_any_order_gives_the_same_bits(
    updates: list[tuple[list[float], int]], random: object, silent: int
) -> None:
    first = folded(updates, silent)
    for _ in range(3):
        shuffled = list(updates)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        again = folded(shuffled, silent)
        assert again.mean().tobytes() == first.mean().tobytes()
        assert (again._high.tobytes(), again._low.tobytes()) == (first._high.tobytes(), first._low.tobytes())


@given(UPDATES, st.integers(0, 2**20))
def test_the_mean_is_the_exact_one_rounded(updates: list[tuple[list[float], int]], silent: int) -> None:
    fold = folded(updates, silent)
    assert fold.updates == len(updates)
    assert fold.weight == sum(w for _, w in updates) + silent
    mean = fold.mean()
    assert mean.dtype == np.float32
    for i in range(3):
        total = sum((Fraction(v[i]) * w for v, w in updates), Fraction(0))
        exact = total / fold.weight
        # One rounding to float32, and what lies below the fold's quantum of 2^-58 in each product.
        allowed = Fraction(float(np.spacing(np.float32(abs(exact))))) * Fraction(51, 100)
        allowed += Fraction(len(updates), fold.weight) * Fraction(1, 2**59)
        assert abs(Fraction(float(mean[i])) - exact) <= allowed


def test_the_largest_sum_is_still_exact() -> None:
    fold = Fold(1)
    largest = np.array([MAX_PRODUCT], np.float32)
    smallest = np.array([2.0**-38], np.float32)
    for _ in range(MAX_UPDATES - 1):
        fold.add(whole(largest), 1)
    fold.check(whole(smallest), 1)
    fold.add(whole(smallest), 1)
    exact = (Fraction(MAX_PRODUCT) * (MAX_UPDATES - 1) + Fraction(1, 2**38)) / MAX_UPDATES
    assert Fraction(float(fold._high[0])) + Fraction(float(fold._low[0])) == exact * MAX_UPDATES
    with pytest.raises(LimitExceeded):
        fold.check(whole(smallest), 1)


@given(st.lists(VALUES, min_size=3, max_size=3), st.integers(1, 1000), st.integers(0, 1000))
def test_silence_shrinks_the_mean_by_its_weight(values: list[float], weight: int, silent: int) -> None:
    alone, diluted = folded([(values, weight)]).mean(), folded([(values, weight)], silent).mean()
    expected = alone.astype(np.float64) * (weight / (weight + silent))
    np.testing.assert_allclose(diluted, expected, rtol=1e-6, atol=1e-17)


@given(UPDATES)
def test_pieces_without_the_zeros_give_the_same_bits(updates: list[tuple[list[float], int]]) -> None:
    dense, sparse = folded(updates), Fold(3)
    for values, weight in updates:
        update = np.array(values, np.float32)
        kept = np.flatnonzero(update)
        sparse.add((Piece(kept, update[kept]),), weight)
    assert sparse.mean().tobytes() == dense.mean().tobytes()
    assert sparse.weight == dense.weight


def test_nothing_folded_is_no_change() -> None:
    assert Fold(3).mean().tobytes() == np.zeros(3, np.float32).tobytes()
    assert folded([], 100).mean().tobytes() == np.zeros(3, np.float32).tobytes()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(NonFinite):
        Fold(3).check(whole(np.array([0.0, value, 1.0], np.float32)), 1)


@pytest.mark.parametrize(
    ("value", "weight", "fine"),
    [(MAX_PRODUCT, 1, True), (MAX_PRODUCT, 2, False), (-MAX_PRODUCT, 2, False), (1.0, 2**20, True),
     (1.0, 2**20 + 1, False), (3e38, 1, False), (0.0, 2**24, True)],
)  # fmt: skip
def test_an_absurd_update_is_refused(value: float, weight: int, fine: bool) -> None:
    update = np.array([value, 0.0, 0.0], np.float32)
    if fine:
        Fold(3).check(whole(update), weight)
        return
    with pytest.raises(LimitExceeded):
        Fold(3).check(whole(update), weight)


def test_memory_does_not_grow_with_the_number_of_updates() -> None:
    size = 50_000
    fold = Fold(size)
    update = np.ones(size, np.float32)
    fold.add(whole(update), 1)
    tracemalloc.start()
    base, _ = tracemalloc.get_traced_memory()
    for _ in range(100):
        fold.check(whole(update), 3)
        fold.add(whole(update), 3)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now - base < 10_000
    assert peak - base < 6 * 8 * size


def test_any_order_gives_the_same_sums_over_many_magnitudes() -> None:
    rng = np.random.default_rng(5)
    updates = (rng.normal(size=(200, 50)) * 10.0 ** rng.uniform(-20, 1, size=(200, 50))).astype(np.float32)
    weights = rng.integers(1, 2**12, size=200)
    sums = set()
    for _ in range(10):
        fold = Fold(50)
        for i in rng.permutation(200):
            fold.add(whole(updates[i]), int(weights[i]))
        sums.add((fold._high.tobytes(), fold._low.tobytes(), fold.mean().tobytes()))
    assert len(sums) == 1
