"""Laws of the rate controller: budgets and errors are kept, and what it says of a frame is so."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from codec_cases import LIMIT_BYTES, schema_of, training_like, updates
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS, CodecSettings, Encoded, decode, encode, inspect
from laconic.compression.combining import front
from laconic.errors import ConfigError, LimitExceeded, ModelError
from laconic.schema import Schema, TensorSpec, Vector
from often import examples

SMALL = PRESETS["small"]
NET = schema_of((24, 1, 3, 3), (24,), (60, 200), (60,), (10, 60), (10,))
LITTLE_NET = schema_of((8, 1, 3, 3), (8,), (30, 80), (30,), (10, 30), (10,))
"""Where a step is searched for again and again."""
SEARCHED = {
    "small": SMALL,
    "tiny": PRESETS["tiny"],
    "no low rank": replace(SMALL, low_rank=False),
    "no pool": replace(SMALL, small_tensor_values=0),
}
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""Where an example takes tenths of a second, and seeds have nothing to be shrunk to."""

names = st.sampled_from(sorted(SEARCHED))
TOLERANCE = 1 + 1e-5
"""Errors are summed in float64 on both sides, in another order, of values rounded to float32."""


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def made(update: Vector, schema: Schema, chosen: CodecSettings = SMALL, **wishes) -> Encoded:
    return encode(update, schema, chosen, rng(), **wishes)


def decoded(encoded: Encoded, schema: Schema) -> np.ndarray:
    return decode(encoded.frame, schema, limit_bytes=LIMIT_BYTES).astype(np.float64)


def shares(update: Vector, encoded: Encoded, schema: Schema) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares, of values over the largest one: what is left out of each tensor, what was there."""
    largest = float(np.abs(update).max(initial=0)) or 1.0
    left = (update - decoded(encoded, schema)) / largest
    there = update.astype(np.float64) / largest
    return (
        np.array([np.square(left[s]).sum() for s in schema.slices]),
        np.array([np.square(there[s]).sum() for s in schema.slices]),
    )


def error_of(update: Vector, encoded: Encoded, schema: Schema, weights: list[float] | None = None) -> float:
    left, there = shares(update, encoded, schema)
    of = np.ones(len(left)) if weights is None else np.array(weights)
    return float(np.sqrt((of * left).sum() / (of * there).sum())) if there.any() else 0.0


def silent_bytes(schema: Schema, chosen: CodecSettings) -> int:
    """Length of the frame in which nothing is sent."""
    return len(made(np.zeros(schema.size, np.float32), schema, chosen).frame)


# Budgets


@given(updates(magnitude=3e38), names, st.integers(0, 3000))
@settings(max_examples=examples(25), deadline=None)
def test_a_frame_keeps_to_its_budget_or_says_the_way_out(case, name, budget):
    schema, update = case
    least = silent_bytes(schema, SEARCHED[name])
    if budget < least:
        with pytest.raises(LimitExceeded, match="raise the budget"):
            made(update, schema, SEARCHED[name], budget_bytes=max(budget, 1))
        return
    encoded = made(update, schema, SEARCHED[name], budget_bytes=budget)
    # With all tensors in the pool a frame can be shorter than one in which nothing is sent.
    assert len(encoded.frame) <= budget
    if not SEARCHED[name].small_tensor_values:
        assert len(encoded.frame) >= least
    assert error_of(update, encoded, schema) <= TOLERANCE


@pytest.mark.parametrize("budget", [400, 1000, 3000, 8000])
def test_a_budget_is_used(budget):
    schema = schema_of((60, 200), (60,))
    update = np.random.default_rng(1).standard_t(3, schema.size).astype(np.float32)
    size = len(made(update, schema, budget_bytes=budget).frame)
    assert 0.9 * budget <= size <= budget


@given(st.integers(0, 99), names, st.floats(60, 1500), st.floats(1.05, 3))
@settings(max_examples=examples(8), deadline=None, phases=WITHOUT_SHRINKING)
def test_more_bytes_are_less_error(seed, name, budget, more):
    update = training_like(LITTLE_NET, np.random.default_rng(seed))
    errors = [
        error_of(update, made(update, LITTLE_NET, SEARCHED[name], budget_bytes=round(b)), LITTLE_NET)
        for b in (budget, budget * more)
    ]
    assert errors[1] <= errors[0] * 1.02


def test_a_budget_below_the_silent_frame_is_refused():
    update = training_like(NET, np.random.default_rng(1))
    least = silent_bytes(NET, SMALL)
    assert len(made(update, NET, budget_bytes=least).frame) <= least
    with pytest.raises(LimitExceeded, match="raise the budget"):
        made(update, NET, budget_bytes=least - 1)


# Errors


@given(updates(magnitude=3e38), names, st.floats(0.001, 0.99))
@settings(max_examples=examples(35), deadline=None)
def test_the_decoded_frame_keeps_to_the_largest_error(case, name, most):
    schema, update = case
    encoded = made(update, schema, SEARCHED[name], max_error=most)
    assert error_of(update, encoded, schema) <= most * TOLERANCE


@given(st.integers(0, 99), st.lists(st.sampled_from([0.1, 1.0, 7.0]), min_size=6, max_size=6))
@settings(max_examples=examples(8), deadline=None, phases=WITHOUT_SHRINKING)
def test_the_largest_error_is_a_weighted_one(seed, weights):
    update = training_like(LITTLE_NET, np.random.default_rng(seed))
    encoded = made(update, LITTLE_NET, max_error=0.3, weights=weights)
    assert error_of(update, encoded, LITTLE_NET, weights) <= 0.3 * TOLERANCE


def test_a_larger_error_is_fewer_bytes():
    update = training_like(LITTLE_NET, np.random.default_rng(2))
    sizes = [len(made(update, LITTLE_NET, max_error=most).frame) for most in (0.05, 0.1, 0.2, 0.4, 0.8)]
    assert sizes == sorted(sizes, reverse=True)


def test_where_budget_and_error_contradict_each_other_the_budget_rules():
    update = training_like(LITTLE_NET, np.random.default_rng(2))
    assert len(made(update, LITTLE_NET, budget_bytes=400, max_error=0.01).frame) <= 400
    both = made(update, LITTLE_NET, budget_bytes=100_000, max_error=0.3)
    assert both.frame == made(update, LITTLE_NET, max_error=0.3).frame


@pytest.mark.parametrize("preset", ["exact", "lossless", "dense8", "fast"])
def test_settings_of_a_fixed_size_take_neither(preset):
    update = training_like(NET, np.random.default_rng(2))
    for wish in ({"budget_bytes": 5000}, {"max_error": 0.1}):
        with pytest.raises(ConfigError, match="deadzone"):
            made(update, NET, PRESETS[preset], **wish)


# What is said of a frame


@given(updates(magnitude=3e38), st.sampled_from(sorted({**SEARCHED, **PRESETS})))
@settings(max_examples=examples(35), deadline=None)
def test_choices_describe_the_frame(case, name):
    schema, update = case
    encoded = made(update, schema, {**SEARCHED, **PRESETS}[name])
    sections = inspect(encoded.frame).sections
    assert [(c.tensors, c.stages, c.bytes) for c in encoded.choices] == [
        (s.tensors, s.stages, s.bytes) for s in sections
    ]
    left, there = shares(update, encoded, schema)
    largest = float(np.abs(update).max(initial=0)) or 1.0
    for choice in encoded.choices:
        of = list(choice.tensors)
        # What is left of a sum of squares is known to the last digits of the sum.
        room = 1e-5 * left[of].sum() + 1e-6 * there[of].sum()
        assert abs(choice.error / largest**2 - left[of].sum()) <= room + 1e-70
    assert encoded.error == pytest.approx(error_of(update, encoded, schema), rel=1e-5, abs=1e-3)


def test_an_update_that_is_not_zero_never_makes_a_silent_frame():
    """Error feedback would repeat it for ever."""
    for seed in range(5):
        update = np.random.default_rng(seed).standard_normal(NET.size).astype(np.float32)
        for name in ("small", "tiny"):
            assert decoded(made(update, NET, replace(PRESETS[name], step_rms=50.0)), NET).any()


# Importance


def of_statistics(flagged: bool) -> tuple[Schema, Vector]:
    """A trained tensor and the running variance of a normalisation, whose change is far smaller."""
    schema = Schema((TensorSpec("w", (40, 50)), TensorSpec("variance", (256,), statistic=flagged)))
    update = np.random.default_rng(5).standard_normal(schema.size).astype(np.float32)
    update[2000:] *= 0.02
    return schema, update


def test_statistics_have_a_finer_step():
    errors = []
    for flagged in (False, True):
        schema, update = of_statistics(flagged)
        left, there = shares(update, made(update, schema), schema)
        errors.append(np.sqrt(left / there))
    assert errors[0][1] > 0.9
    # A tenth of the root mean square is the step: uniform within it, with a dead zone.
    assert errors[1][1] <= 0.1
    assert errors[1][0] == pytest.approx(errors[0][0], rel=0.01)


def test_statistics_give_way_to_a_budget():
    schema, update = of_statistics(True)
    least = silent_bytes(schema, SMALL)
    for budget in (least, least + 20, 100):
        assert len(made(update, schema, budget_bytes=budget).frame) <= budget


@pytest.mark.parametrize("budget", [400, 1500, 4000])
def test_weights_move_the_error_to_where_it_matters_less(budget):
    schema = schema_of((50, 60), (60, 50))
    update = np.random.default_rng(6).standard_t(3, schema.size).astype(np.float32)
    errors = []
    for weights in ((1.0, 1.0), (9.0, 1.0), (1.0, 9.0)):
        left, there = shares(update, made(update, schema, budget_bytes=budget, weights=weights), schema)
        errors.append(left / there)
    even, first, second = errors
    assert first[0] < even[0] < second[0]
    assert second[1] < even[1] < first[1]


@pytest.mark.parametrize("bad", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, np.nan), (1.0, np.inf)])
def test_weights_are_positive_and_as_many_as_tensors(bad):
    with pytest.raises(ModelError):
        made(np.ones(6, np.float32), schema_of((2,), (4,)), weights=bad)


# Memory


@given(
    st.integers(0, 99), st.integers(0, 99), st.sampled_from([{}, {"budget_bytes": 900}, {"max_error": 0.2}])
)
@settings(max_examples=examples(8), deadline=None)
def test_memory_changes_how_fast_a_frame_is_found_and_little_else(seed, other, wish):
    update, before = (training_like(NET, np.random.default_rng(s)) for s in (seed, other))
    memory = made(before, NET).memory
    plain, warm = made(update, NET, **wish), made(update, NET, memory=memory, **wish)
    assert error_of(update, warm, NET) == pytest.approx(warm.error, rel=1e-4)
    assert warm.error <= plain.error * 1.1
    assert len(warm.frame) <= len(plain.frame) * 1.1 + 16


def test_memory_of_another_model_does_no_harm():
    other = schema_of((24, 9), (24,), (200, 90), (60,), (10, 60), (10,))
    memory = made(training_like(other, np.random.default_rng(1)), other).memory
    update = training_like(NET, np.random.default_rng(2))
    warm = made(update, NET, memory=memory)
    assert error_of(update, warm, NET) <= made(update, NET).error * 1.1


# Short frames


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_the_front_has_every_combination_that_no_other_one_beats(ways):
    every = {
        (
            sum(w[i][0] for w, i in zip(ways, chosen, strict=True)),
            sum(w[i][1] for w, i in zip(ways, chosen, strict=True)),
        )
        for chosen in product(*(range(len(w)) for w in ways))
    }
    unbeaten = {c for c in every if not any(o != c and o[0] <= c[0] and o[1] <= c[1] for o in every)}
    found = front(ways)
    assert [(a, b) for a, b, _ in found] == sorted(unbeaten)
    for size, error, chosen in found:
        costs = [w[i] for w, i in zip(ways, chosen, strict=True)]
        assert (size, error) == (sum(c[0] for c in costs), sum(c[1] for c in costs))


@pytest.mark.parametrize("wanted", range(1, 9))
def test_no_more_values_are_sent_than_an_error_needs(wanted):
    """Of eight large values alike among 200,000; a step that sends one sends all."""
    schema = schema_of((16, 9), (16,), (384, 512), (384,), (10, 384))
    update = np.random.default_rng(5).standard_normal(schema.size).astype(np.float32) * np.float32(1e-3)
    update[np.random.default_rng(6).choice(schema.size, 8, replace=False)] = 4.0
    encoded = made(update, schema, max_error=(1 - wanted / 8) ** 0.5 + 0.05)
    assert np.count_nonzero(decoded(encoded, schema)) == wanted
    assert len(encoded.frame) <= 32 + 3 * wanted
