"""MNIST divided in four ways: the fleet's accuracy is that of FedAvg written in sixty lines of numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing_fedavg import reference

from laconic.device_sim import Scenario, run

SCENARIOS = Path(__file__).resolve().parents[3] / "examples" / "scenarios"
SMALL: dict[str, Any] = {
    "end.rounds": 12,
    "coordinator.training.batch_size": 20,
    "coordinator.training.learning_rate_decay": 0.9,
}


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist-pooled", "mnist-uniform", "mnist-90", "mnist-100"])
def test_a_fleet_learns_what_fedavg_in_numpy_learns(name: str, shared_data: Path) -> None:
    """3,000 training images, all 10,000 test images, the last five rounds' mean."""
    scenario = Scenario.read(SCENARIOS / f"{name}.toml").replaced(SMALL)
    devices = sum(d.count or 0 for d in scenario.settings.devices)
    changes = {"data.path": str(shared_data / "mnist"), "data.samples": 3000 // devices}
    scenario = scenario.replaced(changes)
    rounds = [row.accuracy for row in run(scenario).rounds if row.version]
    assert len(rounds) == 12
    assert np.mean(rounds[-5:]) == pytest.approx(np.mean(reference(scenario, seed=1)[-5:]), abs=0.01)
