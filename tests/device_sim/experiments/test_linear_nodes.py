"""One line on four nodes: losses fall within a round and rise with the mean, which is right everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from laconic.device_sim import Result, Scenario, run

SCENARIO = Path(__file__).resolve().parents[3] / "examples" / "scenarios" / "linear.toml"
NODES = [f"node-{i}" for i in range(4)]


@pytest.fixture(scope="module")
def result() -> Result:
    return run(Scenario.read(SCENARIO))


def losses(result: Result, kind: str, node: str, number: int) -> list[float]:
    """Of a round's epochs, each of one step."""
    return [r.loss for r in result.losses if (r.kind, r.device, r.round) == (kind, node, number)]


@pytest.mark.parametrize("number", [1, 2])
def test_losses_are_a_saw(result: Result, number: int) -> None:
    """All fall within the round; of one node the mean of all may be the better line, even on its stretch."""
    here, after = ([losses(result, "device", node, n) for node in NODES] for n in (number, number + 1))
    assert all(of[-1] < of[0] for of in here)
    assert sum(then[0] > before[-1] for before, then in zip(here, after, strict=True)) >= len(NODES) - 1


@pytest.mark.parametrize("node", NODES)
def test_a_node_that_never_communicates_is_content(result: Result, node: str) -> None:
    """Its loss on its own stretch goes on from where it was."""
    first, then = (losses(result, "alone", node, n) for n in (1, 2))
    assert then[0] <= first[-1]


def test_the_federation_is_right_where_lone_nodes_are_not(result: Result) -> None:
    federation = {row.round: row.loss or 0.0 for row in result.rounds}
    alone = {row.round: row for row in result.baselines if row.kind == "alone"}
    for number in range(3, 7):
        assert federation[number] < alone[number].loss_least
        assert federation[number] < alone[number].loss / 4
