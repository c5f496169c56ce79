"""Top-k in one section for many tensors: what is in it, what is spared, what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from codec_cases import LIMIT_BYTES, SETTINGS, schema_of, training_like, updates
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_decoder import Frame

from laconic.compression import PRESETS, decode, encode, inspect, pieces
from laconic.compression.selection import energy, fitted, squared
from laconic.coordinator.fold import Fold
from laconic.schema import Schema, Vector
from often import examples

FAST = PRESETS["fast"]


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@st.composite
def measured(draw: st.DrawFn) -> tuple[Schema, Vector]:
    """An update, some of whose tensors are statistics."""
    schema, update = draw(updates(magnitude=1e3))
    flags = draw(st.lists(st.booleans(), min_size=len(schema.tensors), max_size=len(schema.tensors)))
    marked = (replace(t, statistic=f) for t, f in zip(schema.tensors, flags, strict=True))
    return Schema(tuple(marked)), update


@given(measured(), st.sampled_from([0, 64, 512]))
@settings(deadline=None)
def test_one_section_holds_all_that_may_be_left_out(case, small):
    schema, update = case
    frame = encode(update, schema, replace(FAST, small_tensor_values=small), rng()).frame
    decoded = decode(frame, schema, limit_bytes=LIMIT_BYTES)
    thinned = {i for i, t in enumerate(schema.tensors) if not t.statistic and (t.size > small or not t.size)}
    for section in inspect(frame).sections:
        together = set(section.tensors)
        assert together == thinned if together & thinned else len(together) == 1
    for i, where in enumerate(schema.slices):
        own = update[where]
        if i not in thinned and own.size:
            # Eight bits of the largest: no value is further off than half a step.
            assert np.abs(decoded[where] - own).max() <= np.abs(own).max() / 253 + 2.0**-126


@given(measured())
@settings(deadline=None)
def test_a_section_with_others_in_between_is_decoded_to_the_same_bits_by_all(case):
    schema, update = case
    frame = encode(update, schema, replace(FAST, density=0.3), rng()).frame
    decoded = decode(frame, schema, limit_bytes=LIMIT_BYTES)
    folded = Fold(schema.size)
    parts = list(pieces(frame, schema, limit_bytes=LIMIT_BYTES))
    folded.add(parts, 1)
    whole = Fold(schema.size)
    whole.add(
        list(pieces(encode(decoded, schema, PRESETS["exact"], rng()).frame, schema, limit_bytes=LIMIT_BYTES)),
        1,
    )
    assert folded.mean().tobytes() == whole.mean().tobytes()
    spec = np.array(Frame(frame).vector([t.size for t in schema.tensors]), np.float32)
    assert spec.tobytes() == decoded.tobytes()


def test_many_tensors_cost_what_one_costs_and_a_bit_each():
    one = schema_of((400 * 500,))
    update = training_like(one, rng())
    many = schema_of(*[(500,)] * 400)
    sizes = [len(encode(update, schema, FAST, rng()).frame) for schema in (one, many)]
    # A bit a tensor for the pool, and a byte more for their number.
    assert sizes[1] <= sizes[0] + 400 // 8 + 1


@given(updates(), st.sampled_from(sorted(n for n, s in SETTINGS.items() if s.kind != "deadzone")), st.data())
@settings(deadline=None, max_examples=examples(60))
def test_the_error_weighs_tensors_as_asked(case, name, data):
    schema, update = case
    count = len(schema.tensors)
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=count, max_size=count))
    encoded = encode(update, schema, SETTINGS[name], rng(), weights=weights)
    decoded = decode(encoded.frame, schema, limit_bytes=LIMIT_BYTES).astype(np.float64)
    left, there = (
        sum(w * np.sum((v / 1e15) ** 2) for w, v in zip(weights, (x[s] for s in schema.slices), strict=True))
        for x in (update - decoded, update.astype(np.float64))
    )
    assert encoded.error == pytest.approx(np.sqrt(left / there) if there else 0.0, rel=1e-4, abs=1e-6)


# The ladder


@given(st.integers(0, 999), st.integers(1, 400), st.integers(1, 8), st.sampled_from([0.0, 1.0, 40.0]))
@settings(deadline=None)
def test_no_kept_value_is_further_off_than_its_cell_is_wide(seed, count, bits, away):
    normal = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    kept = normal + np.copysign(np.float32(away + 0.1), normal)
    rungs = fitted(kept, bits)
    assert rungs is not None
    sent = rungs.values()
    assert (np.signbit(sent) == np.signbit(kept)).all()
    low, high = np.abs(kept).min(), np.abs(kept).max()
    cells = 2 ** (bits - 1)
    listed = rungs.ladder.listed
    assert list(listed) == sorted(set(listed))
    assert rungs.ladder.rungs <= cells
    # Where ladders of more than eight rungs cannot stand so far from zero, eight are fitted.
    wide = (high - low) / (cells if rungs.ladder.rungs > 8 or cells <= 8 else 8)
    assert np.abs(sent - kept).max() <= wide + high / 65535 + 1e-6 * high


def test_up_to_four_bits_a_rung_is_the_mean_of_its_values():
    kept = np.random.default_rng(3).standard_t(3, 2000).astype(np.float32)
    kept = kept[kept != 0]
    rungs = fitted(kept, 4)
    assert rungs is not None
    magnitudes = rungs.ladder.magnitudes()
    for level in np.unique(rungs.levels):
        mean = np.abs(kept[rungs.levels == level]).mean(dtype=np.float64)
        assert magnitudes[level] == pytest.approx(mean, abs=float(np.abs(kept).max()) / 65535)


# Sums of squares


@given(updates(magnitude=3e38))
@settings(deadline=None)
def test_the_fast_sum_of_squares_is_right_to_six_digits(case):
    _, update = case
    assert energy(update) == pytest.approx(squared(update), rel=1e-6, abs=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 65_536, 99_999])
def test_the_fast_sum_of_squares_finds_a_bad_value(bad, at):
    values = np.full(100_000, 3e38, np.float32)
    assert np.isfinite(energy(values))
    values[at] = bad
    assert not np.isfinite(energy(values))
