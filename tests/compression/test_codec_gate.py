"""Laws of the gate: forced sends, monotony in norm and threshold, explicit state."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from laconic.compression import GateSettings, GateState, decide
from laconic.errors import ConfigError, NonFinite

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
