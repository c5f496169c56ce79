"""Laws of versions: judged by data and by reports against noise, brought back bit for bit, kept, tried."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from laconic.compression import decode
from laconic.coordinator import canary, evaluation
from laconic.coordinator.advance import Score, Version, first, full_frame
from laconic.coordinator.evaluation import MOST_REPORTS, Evaluation, Gathering, Report, read_evaluation
from laconic.coordinator.publication import oldest_on_the_way
from laconic.coordinator.records import ModelRecord, Status
from laconic.coordinator.registry import Registry
from laconic.coordinator.verdict import (
    ModelSettings,
    better,
    rank_sum_test,
    sign_test,
    worse_by_reports,
    worse_by_score,
)
from laconic.coordinator.way_back import way_back
from laconic.errors import ConfigError, StorageError
from laconic.protocol.identity import weights_hash
from laconic.schema import Schema, TensorSpec, Vector
from laconic.storage import MemoryStore

SCHEMA = Schema((TensorSpec("w", (5, 5)),))
SIZE = SCHEMA.size
# -0.0 is no sum of anything but -0.0: weights come of sums.
WEIGHTS = arrays(np.float32, SIZE, elements=st.floats(-(2.0**100), 2.0**100, width=32)).map(
    lambda w: w + np.float32(0)
)
JUDGED = ModelSettings(margin_loss=0.1, margin_accuracy=0.05)


# --- the way back -------------------------------------------------------------------------------------------


def follow(start: Vector, steps: tuple[Version, ...]) -> Vector:
    """What a device holds that follows the deltas, or the whole model where there is no delta."""
    held = start
    for step in steps:
        frame, base = (step.delta, held) if step.delta is not None else (step.full, np.zeros_like(held))
        assert frame is not None
        held = base + decode(frame, SCHEMA, limit_bytes=4 * SIZE)
        assert weights_hash(held, SCHEMA) == step.digest
    return held


@given(WEIGHTS, WEIGHTS)
def test_the_way_back_is_bit_for_bit_from_anywhere(current: Vector, target: Vector) -> None:
    back = way_back(current, target, SCHEMA, version=3, why="w", score=None)
    assert follow(current, back.steps).tobytes() == target.tobytes()
    last = back.steps[-1]
    assert 1 <= len(back.steps) <= 2
    assert last.full is not None, "no delta leads past a version that takes an older one's name"
    assert decode(last.full, SCHEMA, limit_bytes=4 * SIZE).tobytes() == target.tobytes()
    assert not any(step.residual.any() for step in back.steps)
    deltas = [step.delta for step in back.steps if step.delta is not None]
    assert len(deltas) in (0, len(back.steps))
    assert sum(map(len, deltas)) < len(last.full) or not deltas


def test_one_frame_does_not_always_lead_back_and_two_do() -> None:
    schema = Schema((TensorSpec("w", (4000,)),))
    old = np.random.default_rng(1).normal(size=4000).astype(np.float32) * np.float32(0.05)
    new = old.copy()
    new[::40] += np.float32(0.3)
    one = new + (old - new)
    assert (one != old).any()
    back = way_back(new, old, schema, version=0, why="", score=Score(1.0, 0.5))
    assert len(back.steps) == 2
    assert [step.score for step in back.steps] == [None, Score(1.0, 0.5)]
    assert back.steps[0].full is None
    size = sum(len(step.delta or b"") for step in back.steps)
    assert size < len(full_frame(old, schema)) / 5


# --- the verdict --------------------------------------------------------------------------------------------


SCORES = st.builds(Score, st.floats(0, 10), st.none() | st.floats(0, 1))


@given(SCORES, SCORES)
def test_by_score_a_version_is_worse_beyond_a_margin_and_only_then(new: Score, old: Score) -> None:
    worse = bool(worse_by_score(JUDGED, new, old))
    by_accuracy = None not in (new.accuracy, old.accuracy) and old.accuracy - new.accuracy > 0.05  # type: ignore[operator]
    assert worse == (new.loss - old.loss > 0.1 or by_accuracy)
    assert not worse_by_score(JUDGED, old, old)
    assert not worse_by_score(ModelSettings(), new, old)


def test_a_loss_that_is_no_number_is_worse_than_any_and_the_last_to_be_chosen() -> None:
    assert worse_by_score(JUDGED, Score(math.nan, None), Score(1.0, None))
    assert worse_by_score(JUDGED, Score(math.inf, None), Score(1.0, None))
    order = sorted([(math.nan, None), (None, None), (2.0, 0.3), (1.0, 0.1)], key=lambda s: better(JUDGED, s))
    assert order[-1] == (2.0, 0.3), "by accuracy where it has a margin"
    losses = ModelSettings(margin_loss=0.1)
    assert max([(math.nan, None), (2.0, 0.3), (1.0, 0.1)], key=lambda s: better(losses, s)) == (1.0, 0.1)


@given(st.integers(1, 14), st.data())
def test_the_sign_test_counts_coins(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    heads = [sum(coins) for coins in itertools.product((0, 1), repeat=n)]
    assert sign_test(k, n) == pytest.approx(sum(h >= k for h in heads) / len(heads), abs=1e-12)


@given(st.permutations(range(9)), st.integers(4, 5))
def test_the_rank_sum_test_is_near_the_permutations(pooled: list[int], n: int) -> None:
    """Against the exact distribution over all ways to divide the pooled values, within what n = 4 allows."""
    new, old = pooled[:n], pooled[n:]

    def u(chosen: tuple[int, ...]) -> float:
        rest = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        return sum(pooled[i] > y for i in chosen for y in rest)

    ways = [u(c) for c in itertools.combinations(range(len(pooled)), n)]
    exact = sum(w >= u(tuple(range(n))) for w in ways) / len(ways)
    assert rank_sum_test(new, old) == pytest.approx(exact, abs=0.03)


def reports(losses: dict[str, float]) -> Evaluation:
    return Evaluation(tuple(Report(d, 10, loss, None) for d, loss in sorted(losses.items())))


LOSSES = ModelSettings(margin_loss=0.1)


@pytest.mark.parametrize(("n", "needed"), [(4, None), (5, 5), (8, 7), (10, 9), (20, 15)])
def test_how_many_devices_must_agree(n: int, needed: int | None) -> None:
    old = {f"d{i}": 1.0 for i in range(n)}
    for bad in range(n + 1):
        new = {f"d{i}": 1.2 if i < bad else 1.0 for i in range(n)}
        condemned = bool(worse_by_reports(LOSSES, reports(new), reports(old)))
        assert condemned == (needed is not None and bad >= needed)


@given(st.integers(5, 40), st.integers(0, 8), st.floats(-1e15, 1e15))
def test_a_fifth_that_lies_condemns_nothing_however_loud(n: int, liars: int, lie: float) -> None:
    liars = min(liars, n // 5)
    old = {f"d{i}": float(i) for i in range(n)}
    new = {d: lie if i < liars else loss - 0.01 for i, (d, loss) in enumerate(old.items())}
    assert not worse_by_reports(LOSSES, reports(new), reports(old))
    # Nor does it save what all others condemn.
    worse = {d: lie if i < liars else loss + 1 for i, (d, loss) in enumerate(old.items())}
    assert n < 11 or worse_by_reports(LOSSES, reports(worse), reports(old))


def test_noise_alone_condemns_no_more_often_than_is_stated() -> None:
    chance = np.random.default_rng(5)
    margin, trials = ModelSettings(margin_loss=0.0), 600
    for paired in (True, False):
        false = 0
        for _ in range(trials):
            old = {f"d{i}": float(chance.normal(1, 0.3)) for i in range(15)}
            new = {f"{'d' if paired else 'e'}{i}": float(chance.normal(1, 0.3)) for i in range(15)}
            false += bool(worse_by_reports(margin, reports(new), reports(old)))
        assert false / trials < 0.05 + 0.025
        sure = {f"{'d' if paired else 'e'}{i}": 3.0 for i in range(15)}
        assert worse_by_reports(margin, reports(sure), reports(old))


def test_settings_that_contradict_each_other_are_refused() -> None:
    for settings, what in (
        ({"min_reports": 4}, "models.min_reports"),
        ({"canary_share": 0.1}, "models.canary_share"),
        ({"compare_with": "worst"}, "models.compare_with"),
        ({"margin_accuracy": 1.5}, "models.margin_accuracy"),
        ({"margin_loss": math.nan}, "models.margin_loss"),
    ):
        with pytest.raises(ConfigError, match=what):
            ModelSettings(**settings)  # type: ignore[arg-type]


# --- reports ------------------------------------------------------------------------------------------------


REPORTS = st.lists(
    st.builds(
        Report,
        st.integers(0, 12).map("d{}".format),
        st.integers(0, 1000),
        st.none() | st.floats(-1e15, 1e15),
        st.none() | st.floats(0, 1),
    ),
    max_size=30,
    unique_by=lambda r: r.device,
)


@given(REPORTS, st.randoms())
def test_the_order_of_reports_changes_no_bit(found: list[Report], chance: random.Random) -> None:
    one, other = Gathering(), Gathering()
    shuffled = chance.sample(found, len(found))
    for a, b in zip(found, shuffled, strict=True):
        one.add(a)
        other.add(b)
    assert one.evaluation() == other.evaluation()
    score = one.evaluation().score()
    kept = [r for r in found if r.samples and (r.loss, r.accuracy) != (None, None)]
    assert (score is None) == (not kept)
    if score is not None:
        assert (score.reports, score.samples) == (len(kept), sum(r.samples for r in kept))
        values = [r.loss for r in kept for _ in range(r.samples) if r.loss is not None]
        if values:
            assert score.loss_median == sorted(values)[(len(values) - 1) // 2]
            assert score.loss_mean == pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-3)
        else:
            assert score.loss_median is score.loss_mean is None


def test_reports_are_bounded_and_of_the_same_devices_for_every_version() -> None:
    names = [f"d{i}" for i in range(5 * MOST_REPORTS)]
    found = []
    for order in (names, names[::-1]):
        gathering = Gathering()
        for name in order:
            gathering.add(Report(name, 1, 1.0, None))
            assert len(gathering) <= 2 * MOST_REPORTS
        found.append([r.device for r in gathering.evaluation().reports])
    assert found[0] == found[1]
    assert len(found[0]) == MOST_REPORTS
    with pytest.raises(StorageError, match="record evaluation/1"):
        read_evaluation("evaluation/1", b"\xff")
    assert evaluation.read_evaluation("e", None) == Evaluation()


# --- the registry -------------------------------------------------------------------------------------------


def registry_of(store: MemoryStore, keep: int = 4) -> Registry:
    return Registry(store, SCHEMA, bundle="ab" * 8, key=None, chunk_bytes=64, keep_versions=keep)


def version_of(values: float) -> Version:
    weights = np.full(SIZE, values, np.float32)
    return Version(weights, np.zeros(SIZE, np.float32), weights_hash(weights, SCHEMA), b"delta", None, None)


@given(st.lists(st.sampled_from(["add", "pin", "unpin"]), min_size=4, max_size=20), st.data())
def test_weights_are_kept_while_they_are_recent_or_pinned_and_survive_a_restart(
    acts: list[str], data: st.DataObject
) -> None:
    store, pinned = MemoryStore(), set[int]()
    registry = registry_of(store)
    numbers = {"round_number": 1, "updates": 0, "silent": 0, "samples": 0}
    store.write(registry.add(first(np.zeros(SIZE, np.float32), SCHEMA, lambda w: None), 0.0, **numbers))
    for act in acts:
        newest = registry.current.version
        kept = {v for v in range(newest + 1) if v > newest - 4 or v in pinned}
        assert {v for v in range(newest + 1) if registry.keeps(v)} == kept
        version = data.draw(st.sampled_from(sorted(kept)))
        if act == "add":
            store.write(registry.add(version_of(newest + 1.0), 1.0, **numbers))
        else:
            store.write(registry.pin(version, pinned=act == "pin"))
            (pinned.add if act == "pin" else pinned.discard)(version)
        registry = registry_of(store)
        assert all(registry.weights_of(v)[0] == v for v in range(newest) if registry.keeps(v))
    with pytest.raises(ConfigError, match="version of the model"):
        registry.weights_of(registry.current.version + 1)


def test_damaged_weights_are_not_brought_back() -> None:
    store = MemoryStore()
    registry = registry_of(store)
    for i in range(3):
        store.write(registry.add(version_of(float(i)), 0.0, round_number=i, updates=0, silent=0, samples=0))
    store.write({"weights/00000001": bytes(4 * SIZE)})
    with pytest.raises(StorageError, match="weights of version 1 are damaged"):
        registry.weights_of(1)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_the_deltas_lead_back_as_far_as_names_do_not_repeat(weights: list[int]) -> None:
    kept = [ModelRecord(v, bytes([w]) * 32, "", 0.0) for v, w in enumerate(weights)]
    oldest = oldest_on_the_way(kept)
    way = weights[oldest:]
    assert len(set(way)) == len(way)
    assert oldest == 0 or weights[oldest - 1] in way


def test_a_candidate_is_not_on_offer() -> None:
    registry = registry_of(MemoryStore())
    registry.add(version_of(0.0), 0.0, round_number=0, updates=0, silent=0, samples=0)
    numbers = {"round_number": 1, "updates": 0, "silent": 0, "samples": 0}
    registry.add(version_of(1.0), 0.0, status=Status.CANDIDATE, **numbers)
    assert (registry.current.version, registry.offered.version) == (1, 0)
    registry.note(1, status=Status.PUBLISHED)
    assert registry.offered.version == 1


# --- trials -------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.floats(0.01, 1.0), st.integers(1, 20))
def test_a_trial_asks_its_share_and_enough_to_go_by(n: int, share: float, least: int) -> None:
    names = [f"d{i}" for i in range(n)]
    settings = ModelSettings(margin_loss=1.0, canary_share=share, canary_reports=least)
    trial = canary.begin(settings, "fleet", 3, 7, "0" * 16, names)
    asked = canary.members(trial, names)
    assert len(asked) >= min(n, least)
    assert trial.share >= share
    wider = canary.widened(trial)
    assert set(asked) <= set(canary.members(wider, names))
    while wider.share < 1.0:
        wider = canary.widened(wider)
    assert canary.members(wider, names) == names
    assert canary.begin(settings, "fleet", 4, 7, "0" * 16, names).task != trial.task
