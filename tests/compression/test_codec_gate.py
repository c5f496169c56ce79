"""Laws of the gate: forced sends, monotony in norm and threshold, explicit state."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from laconic.compression import GateSettings, GateState, decide
from laconic.compression.gate import SPAN, STEP, sent
from laconic.errors import ConfigError, NonFinite
from often import examples

MODES = st.sampled_from(["absolute", "model", "running"])
NORMS = st.floats(0, 1e6)


@given(MODES, st.floats(0, 100), st.integers(0, 6), st.lists(NORMS, max_size=40), NORMS)
@hypothesis_settings(deadline=None)
def test_silence_never_lasts_longer_than_allowed(mode, threshold, force, norms, model_norm):
    settings, state, silent = GateSettings(mode, threshold, force), GateState(), 0
    for norm in norms:
        decision = decide(settings, state, norm, model_norm)
        silent = 0 if decision.send else silent + 1
        assert silent <= force
        assert decision.state.silent_rounds == silent
        assert decision.send == (decision.reason != "below")
        assert decision.norm == norm
        state = decision.state


@given(MODES, st.floats(0, 100), st.floats(0, 100), NORMS, NORMS, NORMS, NORMS)
@hypothesis_settings(deadline=None)
def test_more_norm_or_less_threshold_never_closes_the_gate(
    mode, low, high, small, large, running, model_norm
):
    low, high = sorted((low, high))
    small, large = sorted((small, large))
    state = GateState(0, running)
    strict = decide(GateSettings(mode, high), state, small, model_norm)
    assert decide(GateSettings(mode, low), state, small, model_norm).send >= strict.send
    assert decide(GateSettings(mode, high), state, large, model_norm).send >= strict.send


@given(MODES, NORMS, NORMS)
@hypothesis_settings(deadline=None)
def test_a_threshold_of_zero_lets_everything_through(mode, norm, model_norm):
    assert decide(GateSettings(mode, 0.0), GateState(3, 5.0), norm, model_norm).send


@given(MODES, st.floats(0.01, 10), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(-20, 20))
@hypothesis_settings(deadline=None)
def test_relative_modes_do_not_know_units(mode, threshold, norm, reference, power):
    if mode == "absolute":
        return
    settings, unit = GateSettings(mode, threshold), 2.0**power
    here = decide(settings, GateState(0, reference), norm, reference)
    there = decide(settings, GateState(0, reference * unit), norm * unit, reference * unit)
    assert here.send == there.send
    assert there.threshold == here.threshold * unit


def test_named_decisions():
    absolute = GateSettings("absolute", 2.0, force_after_rounds=1)
    below = decide(absolute, GateState(), 1.9, 0.0)
    assert (below.send, below.reason, below.threshold) == (False, "below", 2.0)
    assert decide(absolute, below.state, 1.9, 0.0).reason == "forced"
    assert decide(absolute, GateState(), 2.0, 0.0).reason == "above"
    running = GateSettings("running", 0.5, memory=0.75)
    first = decide(running, GateState(), 8.0, 0.0)
    assert (first.reason, first.state.running_norm) == ("first", 8.0)
    second = decide(running, first.state, 4.0, 0.0)
    assert (second.reason, second.threshold, second.state.running_norm) == ("above", 4.0, 7.0)
    assert decide(GateSettings("model", 0.01), GateState(), 1.0, 200.0).reason == "below"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_bad_norms_are_refused(bad):
    with pytest.raises(NonFinite):
        decide(GateSettings(), GateState(), bad, 1.0)
    with pytest.raises(NonFinite):
        decide(GateSettings("model"), GateState(), 1.0, bad)


@pytest.mark.parametrize(
    "bad",
    [{"mode": "norm"}, {"threshold": -1}, {"threshold": math.nan}, {"force_after_rounds": -1}, {"memory": 1}],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        GateSettings(**bad)


# --- steered -----------------------------------------------------------------------------------------------

NORM_SERIES = {
    "stationary": lambda rng, n: rng.lognormal(0, 0.3, n),
    "drifting": lambda rng, n: rng.lognormal(0, 0.3, n) * np.geomspace(1, 10.0 ** rng.uniform(-3, 3), n),
    "heavy tailed": lambda rng, n: rng.pareto(1.5, n) + 0.1,
    "constant": lambda rng, n: np.ones(n),
}


def life(settings, norms, *, losses=None, seconds=None, frame_bytes=None):
    """Decisions over a life; the times of the rounds are `seconds` apart."""
    state, decisions = GateState(), []
    for i, norm in enumerate(norms):
        loss = None if losses is None else float(losses[i])
        now = None if seconds is None else 1e9 + i * seconds
        decision = decide(settings, state, float(norm), 1.0, loss=loss, now=now)
        state = decision.state
        if decision.send and frame_bytes is not None:
            state = sent(state, frame_bytes)
        decisions.append(decision)
    return decisions


@given(st.sampled_from(sorted(NORM_SERIES)), st.floats(0.1, 0.9), st.integers(0, 9999))
@hypothesis_settings(deadline=None, max_examples=examples(60))
def test_the_achieved_rate_is_the_target_within_a_tenth(kind, target, seed):
    norms = NORM_SERIES[kind](np.random.default_rng(seed), 200)
    settings = GateSettings("steered", force_after_rounds=10**6, target_rate=target)
    sends = sum(d.send for d in life(settings, norms))
    # Beside a tenth, what the threshold's own way costs: three sends, and six where one norm may move it far
    # (over 1,500 lives of each kind the most were 2.3 and 4.6).
    way = 6 if kind == "heavy tailed" else 3
    assert abs(sends / 200 - target) <= max(0.1 * target, way / 200)


@given(st.sampled_from(sorted(NORM_SERIES)), st.floats(0.02, 0.98), st.integers(0, 9999))
@hypothesis_settings(deadline=None, max_examples=examples(60))
def test_sends_differ_from_the_target_by_the_way_of_the_threshold(kind, target, seed):
    norms = NORM_SERIES[kind](np.random.default_rng(seed), 200)
    settings = GateSettings("steered", force_after_rounds=10**6, target_rate=target)
    decisions = life(settings, norms)
    gains = [d.state.gain for d in decisions]
    if max(map(abs, gains)) < SPAN:
        sends = sum(d.send for d in decisions)
        assert STEP * (sends - target * 200) == pytest.approx(gains[-1], abs=1e-9)


def test_a_residual_that_grows_in_silence_is_steered_too():
    settings, state, residual, sends = (
        GateSettings("steered", force_after_rounds=10**6, target_rate=0.2),
        GateState(),
        0.0,
        0,
    )
    for _ in range(200):
        decision = decide(settings, state, residual + 1.0, 1.0)
        residual, state = 0.0 if decision.send else residual + 1.0, decision.state
        sends += decision.send
    assert 36 <= sends <= 44


@given(st.floats(0.12, 0.8), st.floats(60, 7200), st.integers(100, 100_000), st.integers(0, 999))
@hypothesis_settings(deadline=None, max_examples=examples(40))
def test_bytes_a_day_become_a_rate(rate, seconds, frame_bytes, seed):
    """The budget is that of `rate`; frames and rounds cost what they are measured to."""
    budget = rate * frame_bytes * 86_400 / seconds
    settings = GateSettings("steered", force_after_rounds=10**6, bytes_per_day=budget)
    norms = np.random.default_rng(seed).lognormal(0, 0.5, 200)
    decisions = life(settings, norms, seconds=seconds, frame_bytes=frame_bytes)
    assert decisions[-1].target == pytest.approx(rate, rel=1e-6)
    spent = sum(d.send for d in decisions) * frame_bytes
    days = 200 * seconds / 86_400
    # What is sent before a round's length is known: one frame.
    assert abs(spent - budget * days) <= 0.1 * budget * days + frame_bytes


def test_without_a_clock_or_a_frame_every_round_is_within_the_budget():
    settings = GateSettings("steered", bytes_per_day=1.0)
    assert all(d.send and d.target == 1 for d in life(settings, np.geomspace(1, 0.01, 20)))


@given(st.floats(0.02, 0.3), st.integers(1, 12), st.integers(0, 999))
@hypothesis_settings(deadline=None, max_examples=examples(30))
def test_forced_sends_are_counted(target, force, seed):
    norms = np.random.default_rng(seed).lognormal(0, 0.3, 200)
    decisions = life(GateSettings("steered", force_after_rounds=force, target_rate=target), norms)
    rate = sum(d.send for d in decisions) / 200
    assert rate >= 1 / (force + 1) - 0.01
    before = GateState(force, 1.0, gain=0.0)
    forced = decide(GateSettings("steered", force_after_rounds=force, target_rate=target), before, 0.5, 1.0)
    assert forced.reason == "forced"
    assert forced.state.gain == pytest.approx(STEP * (1 - target))
    assert forced.state.rate == 1


def test_the_shown_rate_is_that_of_the_last_rounds():
    settings = GateSettings("absolute", 1.0, force_after_rounds=10**6)
    assert life(settings, [2.0] * 50)[-1].state.rate == 1
    assert life(settings, [2.0] * 50 + [0.5] * 600)[-1].state.rate < 0.01
    assert life(settings, [2.0, 0.5] * 300)[-1].state.rate == pytest.approx(0.5, abs=0.01)


def test_a_threshold_is_the_steered_gates_floor():
    settings = GateSettings("steered", 2.0, force_after_rounds=10**6, target_rate=0.5)
    decisions = life(settings, [1.0] * 100 + [5.0])
    assert sum(d.send for d in decisions[1:100]) == 0, "a target is no reason to send what is below the floor"
    assert decisions[100].reason == "above", "and the silence is not paid back"
    assert decisions[100].threshold == pytest.approx(2.0)


def test_a_clock_that_was_put_back_changes_nothing():
    state = GateState(round_seconds=60.0, decided_at=1000.0)
    settings = GateSettings("steered", target_rate=0.5)
    assert decide(settings, state, 1.0, 1.0, now=500.0).state.round_seconds == 60.0
    assert decide(settings, state, 1.0, 1.0, now=math.nan).state.decided_at == 1000.0


# --- the loss ----------------------------------------------------------------------------------------------


@given(st.floats(1e-6, 1e6), st.floats(1.1, 3.0), st.floats(1.01, 100))
@hypothesis_settings(deadline=None)
def test_a_loss_that_leaves_its_level_opens_the_gate_at_once(level, factor, more):
    settings = GateSettings("absolute", 10.0, force_after_rounds=10**6, loss_factor=factor)
    quiet = life(settings, [1.0] * 30, losses=[level] * 30)
    assert not any(d.send for d in quiet)
    state = quiet[-1].state
    assert decide(settings, state, 1.0, 1.0, loss=level * factor * more).reason == "unsettled"
    assert not decide(settings, state, 1.0, 1.0, loss=level * (1 + (factor - 1) * 0.9)).send
    for unknown in (None, math.nan, math.inf, -1.0):
        after = decide(settings, state, 1.0, 1.0, loss=unknown)
        assert not after.send
        assert after.state.loss_level == state.loss_level


def test_losses_near_zero_are_alike():
    settings = GateSettings("absolute", 10.0, force_after_rounds=10**6, loss_factor=1.5)
    losses = [*np.geomspace(2.0, 1e-5, 60), *([1e-5] * 200), *([1e-5, 1e-3] * 20)]
    assert not any(d.send for d in life(settings, [1.0] * len(losses), losses=losses)[-40:])


def test_a_burst_of_news_is_not_paid_for_with_silence():
    settings = GateSettings("steered", force_after_rounds=10**6, target_rate=0.2, loss_factor=1.5)
    losses = [1.0] * 200 + [8.0] * 20 + [1.0] * 100
    decisions = life(settings, [1.0] * 320, losses=losses)
    assert all(d.send for d in decisions[200:220])
    assert 14 <= sum(d.send for d in decisions[-80:]) <= 18


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "steered"},
        {"target_rate": 0.5},
        {"bytes_per_day": 5.0},
        {"mode": "steered", "target_rate": 1.5},
        {"mode": "steered", "bytes_per_day": math.inf},
        {"loss_factor": 1.0},
        {"loss_factor": math.nan},
    ],
)
def test_targets_that_cannot_be_are_refused(bad):
    with pytest.raises(ConfigError):
        GateSettings(**bad)
