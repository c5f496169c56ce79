"""Laws of error feedback: conservation over any order of commits, losses and rejections; the cap."""

from __future__ import annotations

import numpy as np
import pytest
from codec_cases import LIMIT_BYTES, frame_of, schema_of, training_like
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from laconic.compression import PRESETS, cap, carry, commit, decode, no_residual, norm
from laconic.compression.feedback import FeedbackSettings, Residual
from laconic.errors import ConfigError, ModelError, NonFinite
from often import examples

SCHEMA = schema_of((30, 40), (40,))


@given(
    st.lists(st.sampled_from(["committed", "lost", "rejected", "gated"]), max_size=12), st.integers(0, 999)
)
@settings(deadline=None, max_examples=examples(60))
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
@settings(deadline=None, max_examples=examples(30))
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


# --- the life cycle ----------------------------------------------------------------------------------------


class LifeCycle(RuleBasedStateMachine):
    """One device, any order of rounds, silences, frames, commits, losses, absences and restarts.

    committed + residual + what age and cap have taken = all that was learnt, at every moment.
    """

    @initialize(
        seed=st.integers(0, 999),
        decay=st.sampled_from([0.0, 0.5, 0.97, 1.0]),
        stale=st.integers(0, 6),
        ratio=st.sampled_from([0.5, 3.0, 30.0]),
    )
    def begin(self, seed, decay, stale, ratio):
        self.rng = np.random.default_rng(seed)
        self.settings = FeedbackSettings(ratio, decay, stale)
        self.residual, self.version = Residual(no_residual(SCHEMA.size)), 0
        self.learnt, self.committed, self.taken = (np.zeros(SCHEMA.size) for _ in range(3))
        self.pending = None

    @precondition(lambda self: self.pending is None)
    @rule()
    def train(self):
        change = training_like(SCHEMA, self.rng)
        before = self.residual
        aged = before.aged(self.version, self.settings)
        after = before.carried(change, self.version, usual=0.0, settings=self.settings)
        self.taken += before.values - aged.values.astype(np.float64)
        self.taken += aged.values.astype(np.float64) + change - after.values
        self.learnt += change
        self.residual = after
        assert after.version == self.version
        assert norm(after.values) <= self.settings.cap * norm(change) * (1 + 1e-5)
        kept = norm(before.values)
        missed = before.missed(self.version)
        due = 0.0 if missed > self.settings.stale_after else self.settings.decay**missed * kept
        assert norm(aged.values) == pytest.approx(due, rel=1e-5, abs=1e-12)

    @precondition(lambda self: self.pending is None and self.residual.version is not None)
    @rule()
    def send(self):
        frame = frame_of(self.residual.values, SCHEMA, PRESETS["tiny"], self.rng)
        self.pending = decode(frame, SCHEMA, limit_bytes=LIMIT_BYTES)

    @precondition(lambda self: self.pending is not None)
    @rule()
    def commit_it(self):
        self.residual, self.committed = (
            self.residual.committed(self.pending),
            self.committed + self.pending,
        )
        self.pending = None

    @precondition(lambda self: self.pending is not None)
    @rule()
    def return_it(self):
        before = self.residual.values.copy()
        self.pending = None
        assert (self.residual.values == before).all()

    @rule(versions=st.integers(1, 8))
    def others_go_on(self, versions):
        self.version += versions

    @rule(versions=st.integers(1, 3))
    def the_coordinator_goes_back(self, versions):
        self.version = max(0, self.version - versions)

    @rule()
    def restart(self):
        """What the store holds is all there is."""
        self.residual = Residual(
            np.frombuffer(self.residual.values.tobytes(), np.float32), self.residual.version
        )

    @invariant()
    def nothing_is_lost_and_nothing_counts_twice(self):
        if hasattr(self, "learnt"):
            found = self.committed + self.residual.values + self.taken
            assert np.allclose(found, self.learnt, rtol=0, atol=1e-5 * (1 + np.abs(self.learnt).max()))


LifeCycle.TestCase.settings = settings(max_examples=examples(25), stateful_step_count=25, deadline=None)
TestLifeCycle = LifeCycle.TestCase


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(deadline=None)
def test_a_device_that_trains_from_every_version_misses_none(version, later):
    residual = Residual(np.ones(3, np.float32), version)
    assert residual.missed(version) == residual.missed(version + 1) == 0
    assert residual.aged(version + 1, FeedbackSettings(decay=0.0)) is residual
    assert residual.missed(version + 1 + later) == later
    assert residual.missed(max(version - later, 0)) == min(later, version)


def test_a_residual_of_unknown_age_counts_as_fresh():
    residual = Residual(np.ones(3, np.float32))
    assert residual.aged(10**6, FeedbackSettings()) is residual


def test_the_rule_of_age_in_figures():
    settings, residual = FeedbackSettings(decay=0.5, stale_after=3), Residual(np.ones(2, np.float32), 10)
    assert [float(residual.aged(v, settings).values[0]) for v in (10, 11, 12, 13, 14, 15)] == [
        1,
        1,
        0.5,
        0.25,
        0.125,
        0,
    ]


@pytest.mark.parametrize("bad", [{"cap": -1.0}, {"cap": np.nan}, {"decay": 1.1}, {"stale_after": -1}])
def test_feedback_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError):
        FeedbackSettings(**bad)


def test_devices_that_carry_nothing_share_the_memory_of_it() -> None:
    nothing = no_residual(1000)
    assert nothing is no_residual(1000)
    assert not nothing.any()
    with pytest.raises(ValueError, match="read-only"):
        nothing[0] = 1.0
