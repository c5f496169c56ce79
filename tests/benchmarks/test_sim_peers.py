"""What the comparisons of the simulator make of what peers say: rates, medians, bars; nobody stays behind."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import psutil
import pytest
from _sim import cifar, flute, peers

TROUBLE = {"trouble": "does not install: no such version"}


def test_the_last_object_is_found_between_lines_of_others() -> None:
    said = 'INFO {"not": 1}\n{"at_s": [1.0]}\n{broken\n[1, 2]\nbye\n'
    assert peers.last_object(said) == {"at_s": [1.0]}
    assert peers.last_object("nothing") == {}


def test_processor_seconds_come_evenly_between_looks() -> None:
    ran = peers.Run(10.0, 20.0, [(10.0, 0.0), (12.0, 4.0), (20.0, 8.0)], {})
    assert ran.processor_s(11.0, 16.0) == pytest.approx(4.0)
    assert ran.processor_s(0.0, 99.0) == pytest.approx(8.0)


def test_a_rate_leaves_out_the_first_round() -> None:
    told = {"at_s": [5.0, 15.0, 20.0, 25.0], "loss": [2.3, 2.0, 1.9, 1.8], "accuracy": [0.1, 0.2, 0.3, 0.4]}
    found = cifar.rates_of(peers.Run(0.0, 30.0, [(0.0, 0.0), (30.0, 60.0)], told))
    assert found["updates_per_s"] == pytest.approx(2 * cifar.COHORT / 10.0)
    assert found["updates_per_processor_s"] == pytest.approx(2 * cifar.COHORT / 20.0)
    assert found["start_s"] == pytest.approx(15.0)


def _turn(rate: float, loss: float = 1.8) -> dict[str, object]:
    return {
        "updates_per_s": rate,
        "updates_per_processor_s": rate / 2,
        "start_s": 3.0,
        "loss": [2.3, loss],
    }


def test_several_turns_give_their_medians_and_one_trouble_is_the_whole() -> None:
    found = cifar.summary([_turn(10.0), _turn(30.0), _turn(20.0)])
    assert found["updates_per_s"] == 20.0
    assert found["all_updates_per_s"] == [10.0, 30.0, 20.0]
    assert cifar.summary([_turn(10.0), TROUBLE]) == TROUBLE


def test_the_faster_way_of_pfl_is_the_one_to_beat() -> None:
    found = {
        "laconic": _turn(30.0),
        "flower": _turn(5.0),
        "pfl, 2 processes": _turn(15.0),
        "pfl, 2 threads": _turn(21.0),
    }
    values = [bar.value for bar in cifar.bars(found)]
    assert values[:2] == [pytest.approx(6.0), pytest.approx(30 / 21)]
    assert [bar.ok for bar in cifar.bars(found)] == [True, False, True, True]
    assert [bar.ok for bar in cifar.bars(found | {"pfl, 2 threads": TROUBLE})] == [True] * 4
    # Who learns something else is not compared with.
    assert not cifar.bars(found | {"flower": _turn(5.0, loss=1.2)})[2].ok


def test_a_peer_that_did_not_run_leaves_a_bar_without_a_value_that_is_not_met() -> None:
    ours = {"wall_s": 2.0, "accuracy": 0.9}
    bars = flute.bars({"laconic": ours, "flower": TROUBLE})
    assert [bar.ok for bar in bars] == [True, False, False]
    assert json.loads(json.dumps([asdict(bar) for bar in bars]))[1]["value"] is None
    everything = dict.fromkeys(("laconic", "flower", "pfl, 2 processes", "pfl, 2 threads"), TROUBLE)
    assert not any(bar.ok for bar in cifar.bars(everything))


def test_who_takes_too_long_is_ended_with_all_that_came_of_it() -> None:
    mark = "laconic-peer-that-sleeps"
    child = f"import time; time.sleep(60)  # {mark}"
    parent = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True); time.sleep(60)"
    )
    with pytest.raises(peers.PeerError, match="not done in 2 s"):
        peers.run([sys.executable, "-c", parent], limit_s=2.0)
    assert not [p for p in psutil.process_iter(["cmdline"]) if mark in " ".join(p.info["cmdline"] or [])]


def test_who_fails_is_told_by_its_last_words() -> None:
    with pytest.raises(peers.PeerError, match="no such thing"):
        peers.run([sys.executable, "-c", "raise SystemExit('no such thing')"], limit_s=30.0)
