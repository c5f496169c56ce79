"""Laws of error feedback: conservation over any order of commits, losses and rejections; the cap."""

from __future__ import annotations

import numpy as np
import pytest
from codec_cases import LIMIT_BYTES, frame_of, schema_of, training_like
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compression import PRESETS, cap, carry, commit, decode, no_residual, norm
from laconic.errors import ModelError, NonFinite

SCHEMA = schema_of((30, 40), (40,))


@given(
    st.lists(st.sampled_from(["committed", "lost", "rejected", "gated"]), max_size=12), st.integers(0, 999)
)
@settings(deadline=None, max_examples=60)
def test_what_was_committed_and_the_residual_are_all_that_was_learnt(fates, seed):
    rng = np.random.default_rng(seed)
    residual, learnt, committed = no_residual(SCHEMA.size), np.zeros(SCHEMA.size), np.zeros(SCHEMA.size)
    for fate in fates:
        change = training_like(SCHEMA, rng)
        learnt += change
        residual = carry(residual, change)
        if fate == "gated":
            continue
        sent = decode(frame_of(residual, SCHEMA, PRESETS["small"], rng), SCHEMA, limit_bytes=LIMIT_BYTES)
        if fate == "committed":
            committed += sent
            residual = commit(residual, sent)
    assert np.allclose(committed + residual, learnt, rtol=0, atol=1e-6 * (1 + np.abs(learnt).max()))


@given(st.permutations(range(4)), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_late_commits_in_any_order_leave_the_same_residual(order, seed):
    """Frames overtaken by later changes: each commit subtracts what was sent, whenever it comes."""
    rng = np.random.default_rng(seed)
    changes = [training_like(SCHEMA, rng) for _ in range(4)]
    sent = [
        decode(frame_of(c, SCHEMA, PRESETS["small"], rng), SCHEMA, limit_bytes=LIMIT_BYTES) for c in changes
    ]
    residual = no_residual(SCHEMA.size)
    for change in changes:
        residual = carry(residual, change)
    for i in order:
        residual = commit(residual, sent[i])
    expected = np.sum(changes, axis=0) - np.sum(sent, axis=0)
    assert np.allclose(residual, expected, rtol=0, atol=1e-6)


def test_repeated_commits_of_the_same_target_send_all_of_it():
    rng = np.random.default_rng(8)
    update = training_like(SCHEMA, rng)
    residual = update
    for _ in range(60):
        sent = decode(frame_of(residual, SCHEMA, PRESETS["small"], rng), SCHEMA, limit_bytes=LIMIT_BYTES)
        residual = commit(residual, sent)
    assert norm(residual) < 0.02 * norm(update)


def test_nothing_is_changed_in_place():
    a, b = np.ones(3, np.float32), np.full(3, 2, np.float32)
    carry(a, b), commit(a, b), cap(b, 1.0, 0.5)
    assert (a == 1).all()
    assert (b == 2).all()


@given(st.floats(0, 10), st.floats(0, 10), st.integers(0, 99))
@settings(deadline=None)
def test_the_cap_bounds_the_norm_and_keeps_the_direction(reference, ratio, seed):
    residual = np.random.default_rng(seed).standard_normal(50).astype(np.float32)
    capped = cap(residual, reference, ratio)
    bound = reference * ratio
    assert norm(capped) <= max(bound * (1 + 1e-6), 1e-30)
    if norm(residual) <= bound:
        assert capped is residual
    elif bound > 1e-6:
        cosine = float(capped.astype(np.float64) @ residual) / (norm(capped) * norm(residual))
        assert cosine > 1 - 1e-6


def test_norms_of_large_and_empty_vectors():
    assert norm(np.full(4, 3e38, np.float32)) == pytest.approx(6e38, rel=1e-6)
    assert norm(np.empty(0, np.float32)) == 0


def test_what_is_not_finite_or_does_not_fit_is_refused():
    one, huge = np.ones(3, np.float32), np.full(3, 3e38, np.float32)
    nan = np.array([1, np.nan, 1], np.float32)
    for refused in (
        lambda: carry(one, nan),
        lambda: carry(huge, huge),
        lambda: commit(huge, -huge),
        lambda: commit(nan, one),
        lambda: cap(nan, 1.0, 1.0),
        lambda: cap(one, np.inf, 1.0),
    ):
        with pytest.raises(NonFinite):
            refused()
    for refused in (lambda: carry(one, np.ones(4, np.float32)), lambda: cap(one, -1.0, 1.0)):
        with pytest.raises(ModelError):
            refused()
