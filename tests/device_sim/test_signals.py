"""Laws of what changes by the clock: pieces have a length, agree with themselves, and hold their means."""

from __future__ import annotations

from math import inf, nextafter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim import chance
from laconic.device_sim.signals import (
    DAY_S,
    HOUR_S,
    Constant,
    Daily,
    Nightly,
    Recorded,
    Sessions,
    Signal,
    Solar,
    Synthetic,
    rises,
)
from laconic.errors import ConfigError
from often import examples

keys = st.integers(0, 2**64 - 1)
signals = st.one_of(
    st.builds(Constant, st.floats(0, 10)),
    st.builds(Daily, st.tuples(*[st.floats(0, 5)] * 24), st.floats(-DAY_S, DAY_S)),
    st.builds(Nightly, st.just(5.0), keys, st.floats(0, DAY_S), st.floats(3e3, 4e4), st.floats(0, 2e3)),
    st.builds(Sessions, keys, st.floats(0.01, 0.5), st.floats(1, 4), st.floats(0, DAY_S)),
    st.builds(Synthetic, keys, st.floats(0, 1), st.floats(60, 1e6)),
    st.builds(Solar, st.floats(0, 20), keys, st.floats(0, 1), st.floats(0, DAY_S)),
    st.just(Recorded((0.0, 10.0, 17.5), (1.0, 0.0, 3.0), 20.0)),
    st.floats(-20.0, 0.0).map(Recorded((0.0, 10.0, 17.5), (1.0, 0.0, 3.0), 20.0).begun),
)


@settings(max_examples=examples(200))
@given(signals, st.floats(-1e6, 1e9))
def test_a_piece_ends_later_and_holds_until_then(signal: Signal, t: float) -> None:
    value, end = signal.at(t)
    assert end > t
    assert 0 <= value <= signal.most
    before = nextafter(end, -inf) if end < inf else 1e12
    # At the very end of a piece rounding may be either side.
    middle = t + (before - t) / 2
    assert signal.at(middle)[0] == value


@settings(max_examples=examples(50))
@given(st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 10**6)), min_size=1, max_size=20), keys)
def test_many_devices_draw_what_each_draws_alone(drawn: list[tuple[int, int]], seed: int) -> None:
    devices, counts = (np.array(c, np.int64) for c in zip(*drawn, strict=True))
    of = chance.keys(seed, 7, devices)
    assert of.tolist() == [chance.key(seed, 7, d) for d, _ in drawn]
    alone = [chance.uniform(int(k), c) for k, (_, c) in zip(of, drawn, strict=True)]
    assert chance.uniforms(of, counts).tolist() == alone


def test_draws_are_uniform_over_devices_and_over_days() -> None:
    for drawn in (
        chance.uniforms(chance.keys(1, 2, np.arange(20_000)), np.zeros(20_000, np.int64)),
        chance.uniforms(np.full(20_000, chance.key(1, 2, 3), np.uint64), np.arange(20_000)),
    ):
        counts = np.histogram(drawn, 20, (0, 1))[0]
        assert abs(counts - 1000).max() < 150
        assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.03


def test_four_times_as_many_are_available_at_the_peak() -> None:
    fleet = [Sessions(chance.key(5, d), mean=0.3, swing=4.0, peak_s=3 * HOUR_S) for d in range(4000)]

    def share(hour: float) -> float:
        return sum(s.at(DAY_S + hour * HOUR_S)[0] for s in fleet) / len(fleet)

    assert share(3) == pytest.approx(0.3 * 1.6, abs=0.03)
    assert share(15) == pytest.approx(0.3 * 0.4, abs=0.02)
    assert share(9) == pytest.approx(0.3, abs=0.03)


@settings(max_examples=examples(50))
@given(st.builds(Synthetic, keys, st.floats(0.01, 1), st.just(100.0)), st.integers(0, 1000))
def test_a_synthetic_device_is_there_for_its_share(signal: Synthetic, k: int) -> None:
    t, there = k * 100.0, 0.0
    while t < (k + 1) * 100.0:
        value, end = signal.at(t)
        there += value * (min(end, (k + 1) * 100.0) - t)
        t = end
    assert there == pytest.approx(100 * signal.share, rel=1e-6, abs=1e-6)


@settings(max_examples=examples(50))
@given(keys, st.integers(0, 400))
def test_a_nightly_window_moves_no_more_than_its_jitter(k: int, day: int) -> None:
    window = Nightly(7.0, k, 22 * HOUR_S, 8 * HOUR_S, HOUR_S)
    noon = day * DAY_S + 12 * HOUR_S
    first = rises(window, noon, until_s=noon + DAY_S)
    assert abs(first - day * DAY_S - 22 * HOUR_S) <= HOUR_S
    _, last = window.at(first)
    assert abs(last - first - 8 * HOUR_S) <= HOUR_S + 1e-6


def test_a_trace_repeats() -> None:
    trace = Recorded((0.0, 10.0, 17.5), (1.0, 0.0, 3.0), 20.0)
    assert [trace.at(t) for t in (0.0, 10.0, 19.0, 20.0, 37.5)] == [
        (1.0, 10.0),
        (0.0, 17.5),
        (3.0, 20.0),
        (1.0, 30.0),
        (3.0, 40.0),
    ]
    assert trace.mean == pytest.approx((10 + 7.5) / 20)


def test_a_trace_that_was_begun_before_is_as_far_ahead() -> None:
    trace = Recorded((0.0, 10.0, 17.5), (1.0, 0.0, 3.0), 20.0)
    ahead = trace.begun(-16.0)
    for t in (0.0, 1.0, 1.5, 3.0, 4.0, 17.0, 100.0):
        value, until = trace.at(t + 16)
        assert ahead.at(t) == (value, until - 16)
    assert (ahead.mean, ahead.most) == (trace.mean, trace.most)


@pytest.mark.parametrize(
    ("times", "values", "period"),
    [
        ((), (), 1.0),
        ((0.0, 1.0), (1.0,), 2.0),
        ((1.0,), (1.0,), 2.0),
        ((0.0, 0.0), (1.0, 1.0), 2.0),
        ((0.0, 2.0), (1.0, 1.0), 2.0),
        ((0.0,), (-1.0,), 2.0),
        ((0.0,), (float("nan"),), 2.0),
        ((0.0,), (1.0,), inf),
    ],
)
def test_a_trace_that_is_none_is_refused(
    times: tuple[float, ...], values: tuple[float, ...], period: float
) -> None:
    with pytest.raises(ConfigError):
        Recorded(times, values, period)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Nightly(1.0, 0, 0.0, 10.0, 20.0),
        lambda: Sessions(0, mean=0.9, swing=4.0),
        lambda: Sessions(0, swing=0.5),
        lambda: Synthetic(0, share=1.5),
        lambda: Synthetic(0, period_s=0.0),
    ],
)
def test_windows_that_do_not_fit_are_refused(made: object) -> None:
    assert callable(made)
    with pytest.raises(ConfigError):
        made()
