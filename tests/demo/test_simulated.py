"""The demonstration's fleet over a real broker and in the simulator: the same model, the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from laconic.demo.broker import start_broker
from laconic.demo.command import run
from laconic.demo.data import split_digits
from laconic.demo.fleet import run_fleet
from laconic.demo.processes import children
from laconic.demo.settings import Settings
from laconic.demo.simulated import simulate_fleet
from laconic.demo.site import Site
from laconic.errors import ConfigError
from laconic.training import prepare
from laconic.training.models import digits_cnn


@pytest.mark.broker
def test_a_simulated_fleet_is_the_real_one_to_the_bit_and_to_the_byte(
    tmp_path: Path, mosquitto_path: str
) -> None:
    settings = Settings(rounds=2)
    split = split_digits(2, skew=settings.skew, seed=5)
    bundle = tmp_path / "digits.bundle"
    bundle.write_bytes(prepare(digits_cnn(5)))
    with children(tmp_path / "logs") as running:
        served = start_broker(running, tmp_path, None)
        site = Site(tmp_path / "real", bundle, served.url, tmp_path)
        real = run_fleet("laconic", site, split, settings, running, lambda progress: None)
    site = Site(tmp_path / "simulated", bundle, "mqtt://127.0.0.1", tmp_path)
    simulated = simulate_fleet("laconic", site, split, settings, lambda progress: None)
    assert len(real.model) == 16
    assert simulated.model == real.model
    assert [p.accuracy for p in simulated.points] == [p.accuracy for p in real.points]
    for ours, theirs in zip(simulated.devices, real.devices, strict=True):
        assert (ours.name, ours.committed, ours.silent) == (theirs.name, theirs.committed, theirs.silent)
        assert ours.bytes_up == pytest.approx(theirs.bytes_up, rel=0.01)
        assert ours.bytes_down == pytest.approx(theirs.bytes_down, rel=0.01)
    assert simulated.coordinator_bytes.up == pytest.approx(real.coordinator_bytes.up, rel=0.01)
    assert simulated.coordinator_bytes.down == pytest.approx(real.coordinator_bytes.down, rel=0.01)


def test_a_simulation_has_no_broker(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--simulated"):
        run(
            devices=2,
            rounds=1,
            seed=0,
            broker="mqtt://127.0.0.1",
            output=tmp_path,
            as_json=True,
            simulated=True,
        )
