"""Laws of the robust rules: what they are by definition, whatever the blocks and the silent; and byzfl."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tracemalloc
import types
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from laconic.compression import whole
from laconic.coordinator.aggregation import geometric_median, krum, mixing, pairwise
from laconic.coordinator.aggregation.clipping import clipped, length
from laconic.coordinator.aggregation.optimizers import ServerSettings
from laconic.coordinator.aggregation.plausible import NOTHING_YET, REMEMBERED_ROUNDS, NormHistory, check
from laconic.coordinator.aggregation.rows import Rows, held
from laconic.coordinator.aggregation.rule import aggregate
from laconic.coordinator.aggregation.settings import (
    RULES,
    AggregationSettings,
    RuleName,
    checked,
    named,
)
from laconic.coordinator.configuration import CoordinatorConfig, campaign_of
from laconic.errors import ConfigError, LimitExceeded
from often import examples

Updates = NDArray[np.float32]
QUICK = settings(deadline=None, max_examples=examples(60))


@st.composite
def updates(draw: st.DrawFn, least: int = 1) -> Updates:
    """A few updates of a few values, some of them alike."""
    n, size = draw(st.integers(least, 12)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.normal(size=(n, size)) * 10.0 ** rng.uniform(-2, 2, size=(n, 1))
    if draw(st.booleans()):
        rows[rng.integers(n)] = rows[rng.integers(n)]
    return rows.astype(np.float32)


def rows_of(x: Updates, silent: int = 0) -> Rows:
    return Rows(x.__getitem__, len(x), x.shape[1], silent)


def every_setting() -> list[AggregationSettings]:
    made = [AggregationSettings(rule, mixing=mixed) for rule in RULES for mixed in (False, True)]
    return [
        *made,
        AggregationSettings("median", bucket_size=2),
        AggregationSettings("norm_bound", norm_limit=1.0),
    ]


def label(s: AggregationSettings) -> str:
    return f"{s.rule}{' mixing' * s.mixing}{' buckets' * (s.bucket_size > 1)}{' stated' * bool(s.norm_limit)}"


EVERY = pytest.mark.parametrize("rule", every_setting(), ids=label)


# --- definitions


@QUICK
@given(updates())
def test_the_median_is_numpys(x: Updates) -> None:
    made = aggregate(AggregationSettings("median"), rows_of(x), 0)
    np.testing.assert_array_equal(made, np.median(x.astype(np.float64), axis=0).astype(np.float32))


@QUICK
@given(updates())
def test_a_trimmed_mean_leaves_the_outermost_out(x: Updates) -> None:
    rule = AggregationSettings("trimmed_mean")
    f = rule.tolerated(len(x))
    expected = np.sort(x.astype(np.float64), axis=0)[f : len(x) - f].mean(axis=0)
    np.testing.assert_allclose(aggregate(rule, rows_of(x), 0), expected, rtol=1e-6, atol=1e-7)


@QUICK
@given(updates(least=4))
def test_krum_takes_the_update_with_the_nearest_neighbours(x: Updates) -> None:
    rule = AggregationSettings("krum")
    near = krum.neighbours(len(x), rule.tolerated(len(x)))
    doubles = x.astype(np.float64)
    squares = ((doubles[:, None] - doubles[None]) ** 2).sum(axis=2)
    scores = [np.sort(np.delete(row, i))[:near].sum() for i, row in enumerate(squares)]
    made = aggregate(rule, rows_of(x), 0)
    chosen = [i for i, row in enumerate(x) if np.array_equal(row, made)]
    assert any(scores[i] <= min(scores) * (1 + 1e-9) + 1e-9 for i in chosen)


@QUICK
@given(updates(least=3))
def test_the_geometric_median_has_the_least_sum_of_distances(x: Updates) -> None:
    made = aggregate(AggregationSettings("geometric_median"), rows_of(x), 0).astype(np.float64)

    def total(z: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(x - z, axis=1).sum())

    scale = total(np.zeros(x.shape[1])) + 1e-9
    rng = np.random.default_rng(0)
    others = [*x.astype(np.float64), x.mean(axis=0, dtype=np.float64)]
    others += [made + rng.normal(size=made.shape) * 0.05 * np.abs(x).max() for _ in range(20)]
    assert all(total(made) <= total(z) + 2e-3 * scale for z in others)


@QUICK
@given(updates(), st.floats(0.1, 100.0))
def test_clipping_keeps_the_direction_and_bounds_the_norm(x: Updates, limit: float) -> None:
    update = whole(x[0])
    short = clipped(update, limit)
    values = np.zeros(x.shape[1], np.float32)
    for piece in short:
        assert piece.bound <= max(p.bound for p in update)
        for where, block in piece.blocks():
            assert not isinstance(where, np.ndarray)
            values[where[0]] = block
    assert length(short) <= limit * (1 + 1e-6) or short is update
    expected = x[0] * min(1.0, limit / max(length(update), 1e-30))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-30)


# --- what no rule may depend on


@EVERY
@QUICK
@given(x=updates(least=3))
def test_nobody_sending_but_zeros_or_all_the_same_is_that(rule: AggregationSettings, x: Updates) -> None:
    assert not aggregate(rule, rows_of(np.zeros_like(x)), 1).any()
    alike = np.tile(x[:1], (len(x), 1))
    made = aggregate(rule, rows_of(alike), 1)
    stated = rule.norm_limit and np.linalg.norm(x[0].astype(np.float64)) > rule.norm_limit
    if not stated:
        np.testing.assert_allclose(made, x[0], rtol=1e-5, atol=1e-30)


@EVERY
@QUICK
@given(x=updates(least=3), silent=st.integers(1, 5))
def test_a_silent_device_is_a_row_of_zeros(rule: AggregationSettings, x: Updates, silent: int) -> None:
    if rule.bucket_size > 1 or rule.rule == "norm_bound":
        return  # Buckets are drawn for the rows there are; the silent set no norm.
    padded = np.concatenate([x, np.zeros((silent, x.shape[1]), np.float32)])
    made, expected = aggregate(rule, rows_of(x, silent), 0), aggregate(rule, rows_of(padded), 0)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5 * np.abs(x).max())


@EVERY
def test_blocks_of_columns_change_next_to_nothing(rule: AggregationSettings) -> None:
    x = np.random.default_rng(3).normal(size=(9, 40_000)).astype(np.float32)
    narrow = AggregationSettings(
        rule.rule, rule.mixing, bucket_size=rule.bucket_size, norm_limit=rule.norm_limit, memory_bytes=2**20
    )
    assert narrow.width(9, 2, 40_000) < 5_000
    a, b = aggregate(rule, rows_of(x, 2), 5), aggregate(narrow, rows_of(x, 2), 5)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert aggregate(rule, rows_of(x, 2), 5).tobytes() == a.tobytes()


@EVERY
def test_memory_stays_within_what_was_said(rule: AggregationSettings) -> None:
    size, n, silent, limit = 20_000, 100, 20, 4 * 2**20
    small = AggregationSettings(
        rule.rule, rule.mixing, bucket_size=rule.bucket_size, norm_limit=rule.norm_limit, memory_bytes=limit
    )
    assert n <= (small.most_updates(size) or n)
    stored = np.random.default_rng(0).integers(-99, 99, (n, size), np.int8)

    def read(i: int) -> Updates:
        return stored[i].astype(np.float32)

    tracemalloc.start()
    aggregate(small, held(read, n, size, silent=silent, memory_bytes=limit), 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Beyond it: a sum of the model's size, a row, its double.
    assert peak <= limit + 5 * 8 * size


HOSTILE: list[RuleName] = ["median", "trimmed_mean", "krum", "multi_krum", "geometric_median"]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("rule", HOSTILE)
@pytest.mark.parametrize("distance", [10.0, 1e5])
def test_a_hostile_fifth_moves_a_rule_by_no_more_than_the_honest_differ(
    rule: RuleName, mixed: bool, distance: float
) -> None:
    rng = np.random.default_rng(0)
    honest = 1 + 0.3 * rng.normal(size=(40, 200))
    away = distance * rng.normal(size=(1, 200)) + 0.01 * rng.normal(size=(10, 200))
    x = np.concatenate([honest, away]).astype(np.float32)
    made = aggregate(AggregationSettings(rule, mixed), rows_of(x), 0)
    off = np.linalg.norm(made - honest.mean(axis=0))
    spread = np.linalg.norm(honest - honest.mean(axis=0), axis=1).mean()
    assert off <= 1.2 * spread
    assert np.linalg.norm(x.mean(axis=0) - honest.mean(axis=0)) > spread


def test_a_bound_limits_what_a_hostile_fifth_can_do() -> None:
    honest = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    made = []
    for size in (1e3, 1e6):
        x = np.concatenate([honest, np.full((10, 50), size, np.float32)])
        made.append(aggregate(named("norm_bound"), rows_of(x), 0))
    np.testing.assert_allclose(made[0], made[1], rtol=1e-4)


@QUICK
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 30), st.integers(0, 99))
def test_every_row_is_in_one_bucket(rows: int, size: int, silent: int, seed: int) -> None:
    counts = np.array([1] * rows + ([silent] if silent else []), np.int64)
    means, times = mixing.buckets(counts, size, np.random.default_rng(seed))
    np.testing.assert_allclose(means.sum(axis=1), 1.0)
    assert times.sum() == -(-counts.sum() // size)
    if counts.sum() % size == 0:
        np.testing.assert_allclose((means * times[:, None]).sum(axis=0) * size, counts)


# --- byzfl


def byzfl(module: str) -> Any:
    """A module of byzfl, without the parts of it that need torchvision and seaborn."""
    pytest.importorskip("torch", reason="byzfl needs PyTorch")
    pytest.importorskip("scipy", reason="byzfl needs SciPy")
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        if spec is None or spec.submodule_search_locations is None:
            pytest.skip("no byzfl (LACONIC_TEST_TORCH=1 scripts/test installs it beside torch)")
        package = types.ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["byzfl"] = package
    return importlib.import_module(f"byzfl.{module}")


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "name", ["Median", "TrMean", "Krum", "MultiKrum", "GeometricMedian", "NNM", "Clipping"]
)
def test_byzfl_says_the_same(name: str, seed: int) -> None:
    theirs = byzfl(
        "aggregators.aggregators" if name not in ("NNM", "Clipping") else "aggregators.preaggregators"
    )
    rng = np.random.default_rng(seed)
    n, f = 15, 3
    x = rng.normal(size=(n, 30)).astype(np.float32)
    x[:f] += 5
    doubles, counts = x.astype(np.float64), np.ones(n, np.int64)
    products = pairwise.gram(rows_of(x), 7)
    distances = pairwise.squared_distances(products)
    rule = AggregationSettings(malicious_share=f / n)
    assert rule.tolerated(n) == f
    match name:
        case "Median":
            ours: Any = aggregate(named("median"), rows_of(x), 0)
            expected = theirs.Median()(doubles)
        case "TrMean":
            ours, expected = aggregate(named("trimmed_mean"), rows_of(x), 0), theirs.TrMean(f)(doubles)
        case "Krum" | "MultiKrum":
            # byzfl counts one neighbour more than Blanchard et al.
            chosen = 1 if name == "Krum" else n - f
            ours = krum.selected(distances, counts, nearest=n - f - 1, rows=chosen) @ doubles
            expected = getattr(theirs, name)(f)(doubles)
        case "GeometricMedian":
            start = np.zeros(n)
            ours = (
                geometric_median.weiszfeld(products, counts, start=start, smoothing=0.1, iterations=3)
                @ doubles
            )
            expected = theirs.GeometricMedian(nu=0.1, T=3)(doubles)
        case "NNM":
            ours, expected = (
                mixing.nearest_neighbours(distances, counts, n - f) @ doubles,
                theirs.NNM(f)(doubles),
            )
        case _:
            bound = AggregationSettings("norm_bound", norm_limit=5.0)
            ours, expected = (
                aggregate(bound, rows_of(x), 0),
                theirs.Clipping(5.0)(doubles.copy()).mean(axis=0),
            )
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


# --- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "best"}, {"malicious_share": 0.5}, {"malicious_share": float("nan")}, {"bucket_size": 0},
        {"bucket_size": 3, "malicious_share": 0.2}, {"norm_limit": -1.0}, {"memory_bytes": 1},
        {"absurd_multiple": 1.0}, {"norm_multiple": 0.0},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        AggregationSettings(**wrong)


@EVERY
def test_what_does_not_fit_is_refused_before_anything_runs(rule: AggregationSettings) -> None:
    small = AggregationSettings(
        rule.rule, rule.mixing, bucket_size=rule.bucket_size, norm_limit=rule.norm_limit, memory_bytes=2**20
    )
    checked(rule, size=1_000_000, min_reports=3)
    if small.most_updates(10**7) is None:
        assert small.streams or small.rule == "norm_bound"
        return
    with pytest.raises(ConfigError, match="memory_mb"):
        checked(small, size=10**7, min_reports=50)
    with pytest.raises(ConfigError, match="min_reports"):
        checked(rule, size=10, min_reports=2)


@given(st.integers(1, 10_000), st.floats(0.0, 0.49))
def test_never_half_of_the_rows_may_be_hostile(rows: int, share: float) -> None:
    f = AggregationSettings(malicious_share=share).tolerated(rows)
    assert f >= 0
    assert 2 * f < rows
    assert f >= min(share * rows - 1e-6, (rows - 1) // 2)


def test_a_configuration_file_chooses_rule_and_optimizer() -> None:
    table = {
        "bundle": "b",
        "rounds": {"min_reports": 5},
        "aggregation": {"rule": "robust", "malicious_share": 0.3, "memory_mb": 64},
        "server": {"optimizer": "fedyogi", "learning_rate": 0.05},
    }
    campaign = campaign_of(msgspec.convert(table, CoordinatorConfig), Path())
    assert campaign.aggregation == AggregationSettings(
        "trimmed_mean", mixing=True, malicious_share=0.3, memory_bytes=64 * 2**20
    )
    assert campaign.server == ServerSettings("fedyogi", learning_rate=0.05)
    table["rounds"] = {"min_reports": 2}
    with pytest.raises(ConfigError, match="min_reports"):
        campaign_of(msgspec.convert(table, CoordinatorConfig), Path())


# --- norms


def test_one_device_sets_no_scale() -> None:
    history = NOTHING_YET
    for _ in range(10):
        history = history.after([1e9])
    assert history.usual is None
    check(1e12, history, 100.0)
    history = history.after([1.0, 1.1, 1e9]).after([1e-9, 0.9, 1.0])
    assert history.usual == pytest.approx(1.0, rel=0.2)
    check(90.0, history, 100.0)
    check(1e12, history, 0.0)
    with pytest.raises(LimitExceeded, match="norm of an update"):
        check(120.0, history, 100.0)


@given(st.lists(st.lists(st.floats(0, 1e30), max_size=6), max_size=40), st.randoms(use_true_random=False))
def test_the_usual_norm_is_bounded_memory_in_any_order(norms: list[list[float]], random: Any) -> None:
    a = b = NOTHING_YET
    for of_round in norms:
        a = a.after(of_round)
        shuffled = list(of_round)
        random.shuffle(shuffled)
        b = b.after(shuffled)
    assert a == b
    assert a.sound
    assert len(a.medians) <= REMEMBERED_ROUNDS
    assert not NormHistory([1.0], []).sound
    assert not NormHistory([float("nan")], [3]).sound


def test_when_most_have_changed_the_usual_follows() -> None:
    history = NOTHING_YET
    for _ in range(REMEMBERED_ROUNDS):
        history = history.after([1.0] * 5)
    for _ in range(REMEMBERED_ROUNDS):
        history = history.after([1e4] * 4 + [1.0])
    check(1e4, history, 100.0)
