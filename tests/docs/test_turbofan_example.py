"""examples/turbofan: what the four strategies must give whatever the engines are, and the fleet's books."""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.datasets import cmapss
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.sweep import run_all
from laconic.errors import ConfigError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "turbofan"
sys.path.insert(0, str(EXAMPLE))

import maintenance  # noqa: E402
import operation  # noqa: E402
import operators  # noqa: E402
import strategies  # noqa: E402
from strategies import Prices  # noqa: E402

LIVES = st.lists(st.integers(2, 400), min_size=1, max_size=12)
PRICES = Prices()


def books(stops: list[strategies.Stop], *, cycles: int = 30_000, seed: int = 0) -> operation.Books:
    drawn = operation.draws(len(stops), 2, cycles, np.random.default_rng(seed))
    return operation.operate(stops, drawn, cycles, PRICES)


@settings(max_examples=40, deadline=None)
@given(LIVES)
def test_run_to_failure_wastes_nothing_and_always_fails(lives: list[int]) -> None:
    found = books([strategies.run_to_failure(life) for life in lives])
    assert (found.services, found.wasted) == (0, 0)
    assert found.failures >= 2 * (30_000 // (max(lives) + PRICES.failure_cycles))


@settings(max_examples=40, deadline=None)
@given(LIVES)
def test_service_after_each_cycle_never_fails(lives: list[int]) -> None:
    found = books([strategies.at_interval(life, 1) for life in lives])
    assert found.failures == 0
    assert found.services == 2 * ((30_000 + PRICES.service_cycles) // (1 + PRICES.service_cycles))


@settings(max_examples=60, deadline=None)
@given(LIVES, st.integers(1, 500))
def test_an_engine_runs_for_its_interval_or_its_life(lives: list[int], interval: int) -> None:
    for life in lives:
        stop = strategies.at_interval(life, interval)
        assert stop.cycles + stop.left == life
        assert stop.failed == (life <= interval)


@settings(max_examples=60, deadline=None)
@given(LIVES, st.integers(1, 60))
def test_who_knows_what_is_left_never_fails_and_wastes_the_margin(lives: list[int], margin: int) -> None:
    for life in lives:
        stop = strategies.by_prediction(np.arange(life - 1, -1, -1.0), margin)
        assert not stop.failed
        assert stop.left == min(margin, life - 1)


def test_a_model_that_says_nothing_lets_engines_fail() -> None:
    assert strategies.by_prediction(np.full(7, np.nan), 10) == strategies.run_to_failure(7)
    # What it says when the engine has failed comes too late.
    assert strategies.by_prediction(np.array([50.0, 40.0, 0.0]), 10).failed


@settings(max_examples=40, deadline=None)
@given(LIVES, st.integers(1, 400), st.sampled_from([0.0, 1e4, 6e4, 1e6]))
def test_no_interval_would_have_earned_more(lives: list[int], other: int, failure: float) -> None:
    prices = replace(PRICES, failure=failure)

    def earned(interval: int) -> float:
        return strategies.profit([strategies.at_interval(life, interval) for life in lives], prices)

    best = earned(strategies.best_interval(lives, prices))
    # Few intervals are tried: as long as no further engine fails, a longer one always earns more.
    assert best >= earned(other) - 1e-9


@settings(max_examples=40, deadline=None)
@given(LIVES, st.lists(st.integers(1, 500), min_size=12, max_size=12))
def test_books_add_up(lives: list[int], intervals: list[int]) -> None:
    stops = [strategies.at_interval(life, n) for life, n in zip(lives, intervals, strict=False)]
    found = books(stops)
    assert found.calendar == 60_000
    assert 0 < found.ran <= found.calendar
    standing = found.services * PRICES.service_cycles + found.failures * PRICES.failure_cycles
    # Places that stand still when the books are closed have not stood for all of it.
    assert found.calendar - 2 * PRICES.failure_cycles <= found.ran + standing <= found.calendar + 120
    assert found.cost(PRICES) == found.services * 10_000 + found.failures * 60_000
    assert found.profit(PRICES) == found.ran * 250 - found.cost(PRICES)
    assert found + found == operation.Books(*(2 * v for v in vars(found).values()))
    assert found.wasted <= found.services * max(s.left for s in stops)


@pytest.mark.parametrize("interval", [1, 120, 190, 500])
def test_a_long_operation_earns_what_renewal_theory_says(interval: int) -> None:
    """The reward of a renewal process per unit of time tends to the mean reward over the mean duration."""
    lives = np.random.default_rng(1).integers(130, 360, 20).tolist()
    stops = [strategies.at_interval(life, interval) for life in lives]
    found = books(stops, cycles=1_000_000)
    assert found.profit(PRICES) / found.calendar == pytest.approx(strategies.profit(stops, PRICES), abs=3.0)


def test_the_same_seed_gives_all_strategies_the_same_engines() -> None:
    a: Any = operation.draws(5, 3, 1000, np.random.default_rng(4))
    b: Any = operation.draws(5, 3, 1000, np.random.default_rng(4))
    assert (a == b).all()


def made_up(folder: Path, lives: list[int]) -> None:
    """Files in the form of C-MAPSS' of engines whose sensors move as they wear."""
    rng = np.random.default_rng(0)

    def table(cycles: list[int]) -> str:
        rows = []
        for engine, (life, known) in enumerate(zip(lives, cycles, strict=True), 1):
            for cycle in range(1, known + 1):
                wear = np.exp(-(life - cycle) / 10)
                values = wear * np.linspace(-1, 1, 24) + 0.05 * rng.standard_normal(24)
                rows.append(" ".join([str(engine), str(cycle), *(f"{v:.4f}" for v in values)]))
        return "\n".join(rows)

    (folder / "train_FD001.txt").write_text(table(lives))
    (folder / "test_FD001.txt").write_text(table([life - 8 for life in lives]))
    (folder / "RUL_FD001.txt").write_text("8\n" * len(lives))


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command's, for the scenario shrunk to two operators with three made-up engines each."""
    lives = [30, 34, 38, 42, 46, 50]
    made_up(tmp_path, lives)
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.glob("*FD001.txt")}
    monkeypatch.setattr(cmapss, "SHA256", digests)
    table = tomllib.loads(maintenance.SCENARIO.read_text())
    changes = {
        "end.rounds": 3,
        "data.path": str(tmp_path),
        "data.download": False,
        "data.own_held_out": 0.34,
        "data.cmapss.window": 4,
        "coordinator.rounds.min_devices": 2,
        "coordinator.rounds.min_reports": 1,
        "devices.operator.count": 2,
    }
    monkeypatch.setattr(
        maintenance.Scenario, "read", staticmethod(lambda path: Scenario.of(table).replaced(changes))
    )
    return ["maintenance.py", "--output", str(tmp_path / "runs"), "--seeds", "0,1"]


def test_the_command_compares_the_strategies_with_the_runs_models(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [*arguments, "--json"])
    assert maintenance.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seeds"] == [0, 1]
    main = found["main"]
    assert main["run to failure"]["failed"] == [1.0, 1.0]
    assert main["run to failure"]["wasted"] == [0.0, 0.0]
    assert main["all-knowing"]["failed"] == [0.0, 0.0]
    assert main["all-knowing"]["wasted"] == [1.0, 1.0]
    for name, of in main.items():
        for seed in (0, 1):
            assert of["worst"][seed] <= of["profit"][seed] <= main["all-knowing"]["profit"][seed], name
    # A model may be good or bad after three rounds, but never more certain for a larger margin.
    margins = [of["predictive, federated"]["failed"] for of in found["by_margin"].values()]
    assert all(sum(a) >= sum(b) for a, b in pairwise(margins))
    monkeypatch.setattr(sys, "argv", arguments)
    assert maintenance.main() == 0
    assert "predictive, federated" in capsys.readouterr().out
    assert (tmp_path / "runs" / "maintenance.png").stat().st_size > 10_000


def test_a_fleet_has_every_engine_once(arguments: list[str], tmp_path: Path) -> None:
    scenario = maintenance.Scenario.read(maintenance.SCENARIO)
    [run] = run_all(scenario, tmp_path / "one")
    found = operators.fleet_of(scenario, run)
    assert [len(o.seen) for o in found.operators] == [2, 2]
    assert len(found.lives) == 2
    assert sorted(operators.lives_of(found.operators) + found.lives) == [30, 34, 38, 42, 46, 50]
    for said in (*found.predicted["federated"], *found.operators[0].predicted):
        assert len(said) in found.lives
        assert np.isnan(said).sum() == 3


def test_a_scenario_that_keeps_no_engine_apart_is_refused(arguments: list[str], tmp_path: Path) -> None:
    scenario = maintenance.Scenario.read(maintenance.SCENARIO)
    [run] = run_all(scenario, tmp_path / "one")
    with pytest.raises(ConfigError, match="own_held_out"):
        operators.fleet_of(scenario.replaced({"data.own_held_out": 0.0}), run)
