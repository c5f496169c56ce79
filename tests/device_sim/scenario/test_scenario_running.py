"""What a run reports adds up, and is the same every time."""

from __future__ import annotations

import functools
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_scenario import line, tiny

from laconic.device_sim import Result, run
from laconic.device_sim.scenario import recorder
from laconic.device_sim.scenario.display import done
from laconic.device_sim.scenario.running import Progress

PARTS = (
    "idle_j",
    "user_j",
    "compute_j",
    "promotion_j",
    "active_j",
    "tail_j",
    "radio_idle_j",
    "self_discharge_j",
)


@functools.cache
def played(seed: int = 0, threads: int = 1) -> Result:
    return run(tiny(), seed=seed, threads=threads)


def test_the_same_seed_gives_the_same_result_whatever_the_threads() -> None:
    again = run(tiny(), threads=3)
    assert msgspec.json.encode(again) == msgspec.json.encode(played())
    assert msgspec.json.encode(played(seed=1).devices) != msgspec.json.encode(played().devices)


@pytest.mark.parametrize("seed", [0, 1])
def test_joules_are_conserved(seed: int) -> None:
    result = played(seed)
    for d in result.devices:
        spent = sum(getattr(d, part) for part in PARTS)
        dropped = d.battery_start_j - d.battery_end_j + d.charged_j
        assert dropped == pytest.approx(spent, rel=1e-9)
        work = d.useful_j + d.silent_j + d.wasted_j + d.upkeep_j
        assert work == pytest.approx(d.compute_j + d.promotion_j + d.active_j + d.tail_j, rel=1e-9)
        assert d.upkeep_j > 0
    t = result.totals
    assert t.imbalance < 1e-9
    assert t.joules == pytest.approx(sum(getattr(d, p) for d in result.devices for p in PARTS))
    assert t.joules == pytest.approx(sum(t.joules_by_part.values()))
    assert sum(t.joules_by_origin.values()) == pytest.approx(1.0)


def test_seconds_that_a_scenario_sets_are_assumed_whatever_is_known_of_the_board() -> None:
    t = played(0).totals
    assert t.joules_by_origin["assumed"] * t.joules >= t.joules_by_part["compute"] > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_bytes_and_rounds_add_up(seed: int) -> None:
    result = played(seed)
    t = result.totals
    for name in ("bytes_up", "bytes_down", "ip_bytes_up", "ip_bytes_down", "committed"):
        assert getattr(t, name) == sum(getattr(d, name) for d in result.devices)
    for row in result.rounds:
        classes = [c for c in result.classes if c.round == row.round]
        assert row.bytes_up == sum(c.bytes_up for c in classes)
        assert row.joules == pytest.approx(sum(c.joules for c in classes))
    assert [r.round for r in result.rounds] == list(range(len(result.rounds)))
    assert t.committed == sum(r.updates for r in result.rounds)
    assert t.rounds == 4
    assert t.ended == "finished"
    for a, b in pairwise(result.rounds):
        assert a.bytes_up <= b.bytes_up
        assert a.joules <= b.joules


def test_work_that_fails_is_wasted_and_work_behind_the_gate_is_silent() -> None:
    lost = run(tiny(devices__phone__failures={"crash": 1.0}, devices__pi__count=1, end__hours=0.03))
    phones = [d for d in lost.devices if d.kind == "phone"]
    assert sum(d.wasted_j for d in phones) > 0
    assert not any(d.useful_j or d.committed for d in phones)
    shut = run(
        tiny(
            coordinator__gate={"mode": "model", "threshold": 50.0, "force_after": 100},
            devices__phone__count=0,
        )
    )
    assert shut.totals.skipped["gate"] > 0
    assert shut.totals.silent_j > 0


def test_a_run_ends_with_its_hours_or_its_accuracy() -> None:
    short = run(tiny(end__hours=0.2))
    assert (short.totals.ended, short.totals.hours) == ("hours", pytest.approx(0.2))
    good = run(tiny(end__accuracy=0.3, end__rounds=50, devices__phone__count=0))
    assert good.totals.ended == "finished"
    assert good.totals.rounds < 50
    assert good.rounds[-1].accuracy is not None
    assert good.rounds[-1].accuracy >= 0.3


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 9), st.integers(1, 9), st.floats(0, 9), st.floats(0.1, 9), st.floats(0, 1), st.floats(0, 1)
)
def test_the_share_that_is_done_is_one(
    rounds: int, of_rounds: int, hours: float, of_hours: float, accuracy: float, goal: float
) -> None:
    share = done(Progress(rounds, of_rounds, hours, of_hours, accuracy, goal))
    assert 0 <= share <= 1
    assert share == 1 or (rounds < of_rounds and hours < of_hours)


def test_who_watches_sees_every_round() -> None:
    seen: list[Progress] = []
    run(tiny(devices__phone__count=0), watch=seen.append)
    assert {p.rounds for p in seen} >= {0, 1, 2, 3, 4}
    assert all(a.hours <= b.hours for a, b in pairwise(seen))


def test_errors_are_told_apart_by_what_they_are_not_by_what_was_found() -> None:
    for why in (
        "size, found (3, 4), allowed (3, 5); train again",
        "size, found 7, allowed (3, 5); train again",
    ):
        assert recorder._FOUND.sub("", why) == "size, allowed (3, 5); train again"
    assert recorder._FOUND.sub("", "loss, found nan") == "loss"


def test_rounds_of_which_nothing_came_count_everywhere() -> None:
    # After the first round the gate stays shut.
    gate = {"mode": "model", "threshold": 1e9, "force_after": 1000}
    quiet = {"devices__phone__count": 0, "coordinator__gate": gate, "baselines": {"pooled": True}}
    result = run(tiny(end__rounds=3, **quiet))
    assert [d.trained for d in result.devices] == [3, 3]
    assert (result.totals.rounds, result.totals.opened, result.totals.versions) == (3, 3, 1)
    assert result.rounds[-1].round == 1
    assert [r.round for r in result.baselines] == [0, 1, 2, 3]


def test_the_loss_at_the_end_is_that_of_the_version_that_was_kept(tmp_path: Path) -> None:
    # Every step goes too far.
    settings = {"models": {"margin_loss": 0.0, "min_reports": 5}, "training": {"learning_rate": 2.0}}
    result = run(line(tmp_path, 8, end={"rounds": 3}, coordinator=settings))
    first, last = result.rounds[0], result.rounds[-1]
    assert (first.version, last.version) == (0, None)
    assert first.loss is not None
    assert last.loss is None or last.loss > first.loss
    assert result.totals.loss == first.loss
