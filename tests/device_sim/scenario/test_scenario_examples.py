"""Every example is one device's, whatever the division; each device has one."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.scenario.examples import divided, examples_of
from laconic.device_sim.scenario.settings import DIVISIONS, DataSection
from laconic.errors import ConfigError


@settings(max_examples=30, deadline=None)
@given(
    division=st.sampled_from(DIVISIONS),
    devices=st.integers(1, 25),
    labels=st.lists(st.integers(0, 6), min_size=25, max_size=80),
    seed=st.integers(0, 99),
    alpha=st.sampled_from([0.001, 0.5, 100.0]),
)
def test_a_division_loses_and_doubles_nothing(
    division: str, devices: int, labels: list[int], seed: int, alpha: float
) -> None:
    s = DataSection(division=division, alpha=alpha, own_class=0.7)
    group = np.arange(len(labels)) // 1
    found = divided(s, np.array(labels), group, devices, np.random.default_rng(seed))
    parts = [found.of_device(i) for i in range(devices)]
    assert len(found) == devices
    assert all(len(part) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


def test_a_device_has_mostly_its_own_class() -> None:
    found = examples_of(DataSection(division="own_class", own_class=0.9), 10, 0, Path())
    for device, part in enumerate(found.devices):
        assert (part.y == device).mean() > 0.85


def test_a_small_alpha_divides_less_evenly() -> None:
    def spread(alpha: float) -> float:
        found = examples_of(DataSection(division="dirichlet", alpha=alpha), 10, 0, Path())
        return float(np.std([len(part.y) for part in found.devices]))

    assert spread(0.05) > 3 * spread(100.0)


def test_held_out_examples_are_nobodys() -> None:
    found = examples_of(DataSection(held_out=0.25), 4, 0, Path())
    assert len(found.held_out.y) == round(0.25 * 1797)
    assert sum(len(part.y) for part in found.devices) == 1797 - len(found.held_out.y)


def test_a_file_of_mnist_with_another_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0" * 16))
    with pytest.raises(ConfigError, match="SHA-256"):
        examples_of(DataSection(source="mnist", path=str(tmp_path)), 2, 0, Path())


@pytest.mark.parametrize("each", [1, 2])
def test_a_larger_fleet_has_the_groups_of_a_smaller_one_and_more(tmp_path: Path, each: int) -> None:
    x = np.arange(40, dtype=np.float32)[:, None]
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(40) % 2, group=np.arange(40) // 4 - 1)
    s = DataSection(source="npz", path="own.npz", division="group", groups_each=each)
    fleets = [examples_of(s, devices, 3, tmp_path).devices for devices in (1, 2, 4)]
    held = [{float(v) for part in fleet for v in part.x.ravel()} for fleet in fleets]
    assert [len(values) for values in held] == [4 * each, 8 * each, 16 * each]
    assert held[0] < held[1] < held[2]
    assert all(len(np.unique(part.x // 4)) == each for fleet in fleets for part in fleet)
