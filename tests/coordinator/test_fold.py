"""Laws of the fold: exact, whatever the order; bounded, whatever the number."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compression import Given, whole
from laconic.compression.factors import IntegerFactors
from laconic.compression.piece import FOLD_BLOCK, Product
from laconic.coordinator.fold import MAX_PRODUCT, MAX_UPDATES, QUANTUM, Fold
from laconic.errors import LimitExceeded, NonFinite
from laconic.schema import Vector
from often import examples

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


def quanta(fold: Fold) -> list[int]:
    """The exact sums."""
    coarse = [0] * fold._fine.size if fold._coarse is None else fold._coarse.tolist()
    return [f + (c << 46) for f, c in zip(fold._fine.tolist(), coarse, strict=True)]


def rounded(product: Fraction) -> int:
    """As quanta, ties to even."""
    return round(product / Fraction(QUANTUM))


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
        assert quanta(again) == quanta(first)


@given(UPDATES, st.integers(0, 2**20))
def test_the_mean_is_the_exact_one_rounded(updates: list[tuple[list[float], int]], silent: int) -> None:
    fold = folded(updates, silent)
    assert fold.updates == len(updates)
    assert fold.weight == sum(w for _, w in updates) + silent
    mean = fold.mean()
    assert mean.dtype == np.float32
    for i in range(3):
        total = sum(rounded(Fraction(v[i]) * w) for v, w in updates)
        assert quanta(fold)[i] == total
        # int to float64 rounds once, as the fold does.
        assert mean[i] == np.float32(float(total) * QUANTUM / fold.weight)


def test_the_largest_sum_is_still_exact() -> None:
    # The largest that may come, and the largest that one integer of 8 bytes must hold.
    fold, direct = Fold(1), Fold(1)
    largest = np.array([MAX_PRODUCT], np.float32)
    smallest = np.array([2.0**-38], np.float32)
    for _ in range(MAX_UPDATES - 1):
        fold.add(whole(largest), 1)
        direct.add(whole(-largest / np.float32(2**14)), 1)
    fold.check(whole(smallest), 1)
    fold.add(whole(smallest), 1)
    assert quanta(fold) == [rounded(Fraction(MAX_PRODUCT) * (MAX_UPDATES - 1) + Fraction(1, 2**38))]
    assert direct._coarse is None
    assert quanta(direct) == [-64 * (MAX_UPDATES - 1) * 2**42]
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
        # In two pieces: one may have large products where the other has none.
        sparse.add((Given(kept[:1], update[kept[:1]]), Given(kept[1:], update[kept[1:]])), weight)
    assert quanta(sparse) == quanta(dense)
    assert sparse.mean().tobytes() == dense.mean().tobytes()
    assert sparse.weight == dense.weight


def low_rank(rng: np.random.Generator, rows: int, columns: int, scale: float) -> Product:
    """A matrix with dead rows and some values beside the product, in the middle of a vector."""
    left = rng.integers(-9, 10, (rows, 3)) * (rng.random((rows, 1)) < 0.5)
    right = rng.integers(-9, 10, (columns, 3))
    factors = IntegerFactors(left.astype(np.int32), right.astype(np.int32), (0, 3, 9), scale)
    places = np.sort(rng.choice(rows * columns, min(int(rng.integers(0, 9)), rows * columns), replace=False))
    values = rng.normal(0, 100 * scale, places.size).astype(np.float32)
    return Product(5, factors, places, values, factors.bound() + float(np.abs(values).max(initial=0)))


def as_vector(piece: Product, size: int) -> Vector:
    out = np.zeros(size, np.float32)
    matrix = out[5 : 5 + len(piece.factors.left) * len(piece.factors.right)]
    piece.factors.fill(matrix)
    matrix[piece.positions] += piece.values
    return out


@given(
    st.integers(0, 999),
    st.sampled_from([(1, 1), (40, 3), (400, 7), (60, 1100), (3, 40_000)]),
    st.sampled_from([1e-6, 1e-3, 1.0, 2.0]),
)
@settings(deadline=None, max_examples=examples(60))
def test_a_product_that_is_never_whole_gives_the_same_bits(
    seed: int, shape: tuple[int, int], scale: float
) -> None:
    piece = low_rank(np.random.default_rng(seed), *shape, float(np.float32(scale)))
    size = 5 + shape[0] * shape[1] + 2
    dense, made = Fold(size), Fold(size)
    for weight in (3, 50):
        for fold, update in ((dense, whole(as_vector(piece, size))), (made, (piece,))):
            fold.check(update, weight)
            fold.add(update, weight)
    assert quanta(made) == quanta(dense)
    assert made.mean().tobytes() == dense.mean().tobytes()


def test_a_product_is_refused_for_its_values_and_not_for_its_bound() -> None:
    # Each component has its largest entry in a row of its own: no value comes near the bound.
    left, right = np.diag([8, 8]).astype(np.int32), np.array([[8, 8]], np.int32)
    factors = IntegerFactors(left, right, (0, 0), 2048.0)
    piece = Product(0, factors, np.empty(0, np.int64), np.empty(0, np.float32), factors.bound())
    assert factors.bound() == 2 * 4 * 64 * 2048 > MAX_PRODUCT / 2
    Fold(2).check((piece,), 2)
    with pytest.raises(LimitExceeded):
        Fold(2).check((piece,), 3)


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
    assert peak - base < 2 * 8 * FOLD_BLOCK + 10_000


def test_any_order_gives_the_same_sums_over_many_magnitudes() -> None:
    rng = np.random.default_rng(5)
    updates = (rng.normal(size=(200, 50)) * 10.0 ** rng.uniform(-20, 1, size=(200, 50))).astype(np.float32)
    weights = rng.integers(1, 2**12, size=200)
    sums = set()
    for _ in range(10):
        fold = Fold(50)
        for i in rng.permutation(200):
            fold.add(whole(updates[i]), int(weights[i]))
        sums.add((tuple(quanta(fold)), fold.mean().tobytes()))
    assert len(sums) == 1
