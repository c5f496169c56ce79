"""Data that drift: nothing changes before, all has changed after, and each moment sees its own step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim import Scenario, run
from laconic.device_sim.datasets.turning import turned
from laconic.device_sim.scenario.drift import Drift, Today
from laconic.device_sim.scenario.examples import Examples, Part
from laconic.device_sim.scenario.settings import DriftSection
from laconic.errors import ConfigError
from often import examples

HOUR_S = 3600.0


def part(samples: int = 12) -> Part:
    x = np.random.default_rng(0).random((samples, 1, 6, 6)).astype(np.float32)
    return Part(x, np.arange(samples) % 5)


def drift(**values: Any) -> Drift:
    return Drift(DriftSection(**values), Examples([part()], part()), 1000.0)


@settings(max_examples=examples(100), deadline=None)
@given(
    begin=st.floats(0, 100),
    hours=st.floats(0.01, 1000),
    steps=st.integers(1, 50),
    at=st.lists(st.floats(-10, 1200), min_size=2, max_size=10),
)
def test_steps_follow_each_other_from_the_beginning_to_the_end(
    begin: float, hours: float, steps: int, at: list[float]
) -> None:
    found = drift(kind="sensor", begin_hour=begin, hours=hours, steps=steps)

    def step(hour: float) -> int:
        return found.step(1000.0 + hour * HOUR_S)

    seen = [step(hour) for hour in sorted(at)]
    assert seen == sorted(seen)
    assert step(begin - 0.01) == 0
    assert step(begin + 1e-6 * hours) == 1
    assert step(begin + hours) == steps


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(1, 5), st.integers(1, 9))
def test_classes_come_one_after_the_other_and_stay(first: int, steps: int) -> None:
    found, whole = drift(kind="classes", classes=first, steps=steps), part()
    seen = [set(found.seen(whole, step).y.tolist()) for step in range(steps + 1)]
    assert seen[0] == set(range(first))
    assert seen[-1] == set(range(5))
    assert all(a <= b for a, b in pairwise(seen))
    for step in range(steps + 1):
        assert found.samples(whole, step) == len(found.seen(whole, step).y)


def test_what_is_seen() -> None:
    whole = part()
    turn = drift(kind="turn", degrees=60.0, steps=3)
    assert turn.seen(whole, 0) is whole
    np.testing.assert_array_equal(turn.seen(whole, 2).x, turned(whole.x, 40.0))
    sensor = drift(kind="sensor", gain=0.5, offset=-1.0, steps=2).seen(whole, 1)
    np.testing.assert_allclose(sensor.x, whole.x * 1.25 - 0.5, rtol=1e-6)
    assert sensor.x.dtype == np.float32
    assert drift().seen(whole, 0) is whole


def test_a_step_is_made_once_and_the_one_before_is_let_go() -> None:
    today = Today(part(), drift(kind="turn", begin_hour=1.0, hours=2.0, steps=2))
    first, second = today.at(1000.0 + HOUR_S), today.at(1000.0 + 1.9 * HOUR_S)
    assert first is second
    assert today.at(1000.0 + 2 * HOUR_S) is not first
    np.testing.assert_array_equal(today.at(0.0).x, part().x)


@pytest.mark.parametrize(("values", "told"), [({"kind": "turn"}, "images"), ({"kind": "classes"}, "classes")])
def test_what_cannot_drift_so_is_refused(values: dict[str, Any], told: str) -> None:
    flat = Part(np.zeros((4, 3), np.float32), np.zeros(4, np.float32))
    with pytest.raises(ConfigError, match=told):
        Drift(DriftSection(**values), Examples([flat], flat), 0.0)
    with pytest.raises(ConfigError, match=r"data\.drift\.classes"):
        drift(kind="classes", classes=6)


TABLE: dict[str, Any] = {
    "name": "drifts",
    "start_hour": 30.0,
    "end": {"rounds": 10},
    "model": {"built_in": "softmax"},
    "data": {"samples": 200},
    "coordinator": {"rounds": {"interval_s": HOUR_S}},
    "devices": [{"name": "pi", "count": 3, "speed": {"sample_s": 0.001}}],
}


def test_a_fleet_loses_its_way_and_finds_it_again() -> None:
    scenario = Scenario.of(TABLE)
    still = run(scenario).rounds
    askew = {"kind": "turn", "degrees": 45.0, "begin_hour": 5.5, "steps": 1}
    changed = scenario.replaced({"data.drift": askew})
    found = run(changed, threads=2).rounds
    before = [r for r in found if r.hours < 5.5]
    assert [r.accuracy for r in before] == [r.accuracy for r in still[: len(before)]]
    after = [r.accuracy or 0.0 for r in found[len(before) :]]
    assert after[0] < (before[-1].accuracy or 0.0) - 0.2
    assert after[-1] > after[0] + 0.05
    assert run(changed).rounds == found


def test_who_has_nothing_yet_does_not_take_part() -> None:
    """Of two devices one has classes that come after two hours only: till then it is not asked to train."""
    table = TABLE | {
        "end": {"rounds": 4},
        "coordinator": {"rounds": {"interval_s": HOUR_S, "min_reports": 1}},
    }
    table["devices"] = [TABLE["devices"][0] | {"count": 2}]
    late = {"division": "own_class", "own_class": 1.0, "samples": 60}
    scenario = Scenario.of(table | {"data": late}).replaced({"data.drift": {"kind": "classes", "hours": 4.0}})
    result = run(scenario)
    assert result.totals.rounds == 4
    assert result.rounds[0].accuracy == 1.0
