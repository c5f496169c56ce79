"""Every example is one device's, whatever the division; each device has one, and groups stay whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.scenario.division import Division, Parts, divided
from laconic.device_sim.scenario.examples import Part, examples_of
from laconic.device_sim.scenario.own import set_apart
from laconic.device_sim.scenario.settings import DIVISIONS, DataSection
from laconic.errors import ConfigError
from often import examples


@settings(max_examples=examples(100), deadline=None)
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
    group = np.arange(len(labels)) % 25
    found = divided(s, np.array(labels), group, devices, np.random.default_rng(seed))
    parts = [found.of_device(i) for i in range(devices)]
    assert len(found) == devices
    assert all(len(part) for part in parts)
    assert all((np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    if division == "group":
        owners = {g: {i for i, part in enumerate(parts) if g in group[part]} for g in group.tolist()}
        assert all(len(who) == 1 for who in owners.values())
        groups = [len(np.unique(group[part])) for part in parts]
        assert max(groups) - min(groups) <= 1


@settings(max_examples=examples(100), deadline=None)
@given(
    kind=st.sampled_from(["classes", "classes of groups", "values", "values of groups"]),
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    share=st.sampled_from([0.05, 0.2, 0.5]),
    seed=st.integers(0, 99),
)
def test_what_is_set_apart_is_a_share_of_each_device_and_the_last_of_it(
    kind: str, counts: list[int], share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(len(counts)), counts)
    n = len(owners)
    classes = kind.startswith("classes")
    labels = rng.integers(0, 3, n) if classes else rng.random(n).astype(np.float32)
    group = np.sort(rng.integers(0, 4, n)) if kind.endswith("groups") else None
    apart = set_apart(owners, labels, group, share)
    for device, count in enumerate(counts):
        mine = apart[owners == device]
        assert mine.sum() < count
        assert (mine.sum() > 0) == (count > 1)
        if group is None or classes:
            assert mine.sum() == (max(1, round(share * count)) if count > 1 else 0)
        # Within a class, or a group, what is apart comes after what is not.
        kinds = np.zeros(count, int) if group is None else group[owners == device]
        if classes:
            kinds = kinds * 3 + labels[owners == device]
        for k in np.unique(kinds):
            assert (np.diff(mine[kinds == k].astype(int)) >= 0).all()
        if group is not None and not classes and len(np.unique(kinds)) > 1:
            assert all(mine[kinds == k].all() or not mine[kinds == k].any() for k in np.unique(kinds))


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
    assert not found.own


def test_own_examples_are_a_devices_and_not_learnt_from() -> None:
    found = examples_of(DataSection(own_held_out=0.2, samples=50), 7, 0, Path())
    assert [len(p.y) for p in found.own] == [10] * 7
    assert [len(p.y) for p in found.devices] == [40] * 7
    assert set(found.labels().tolist()) == set(range(10))


def made(path: Path, **arrays: Any) -> DataSection:
    np.savez(path / "made.npz", **arrays)
    return DataSection(source="npz", path="made.npz", division="group")


def test_whole_groups_are_held_out_and_dealt(tmp_path: Path) -> None:
    group = np.repeat([7, 3, 5, 11], 10)
    s = made(tmp_path, x=group[:, None].astype(np.float32), y=np.arange(40.0), group=group)
    found = examples_of(s, 3, 0, tmp_path)
    assert found.held_out.y.dtype == np.float32
    seen = [np.unique(part.x).tolist() for part in (*found.devices, found.held_out)]
    assert sorted(seen) == [[3.0], [5.0], [7.0], [11.0]]
    # In the order of the file, which is that of time.
    assert all((np.diff(part.y) == 1).all() for part in found.devices)
    with pytest.raises(ConfigError, match="groups to divide among devices"):
        examples_of(s, 4, 0, tmp_path)


@pytest.mark.parametrize("group", [np.zeros(39, int), np.zeros(40), np.zeros((40, 1), int)])
def test_groups_that_do_not_fit_are_refused(tmp_path: Path, group: np.ndarray) -> None:
    s = made(tmp_path, x=np.zeros((40, 1)), y=np.zeros(40), group=group)
    with pytest.raises(ConfigError, match="group in"):
        examples_of(s, 1, 0, tmp_path)


def test_data_without_groups_or_classes_are_not_divided_by_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data with groups"):
        examples_of(DataSection(division="group"), 2, 0, Path())
    s = made(tmp_path, x=np.zeros((40, 1)), y=np.zeros(40))
    with pytest.raises(ConfigError, match="uniform or group"):
        examples_of(DataSection(source="npz", path=s.path, division="own_class"), 2, 0, tmp_path)


def test_a_large_fleets_parts_are_views_of_one_array() -> None:
    devices, samples = 100_000, 300_000
    labels = np.random.default_rng(0).integers(0, 10, samples)
    for division in ("uniform", "own_class", "dirichlet"):
        s = DataSection(division=division, alpha=0.01)
        found = divided(s, labels, None, devices, np.random.default_rng(0))
        parts = Parts(Part(labels[found.order, None], labels[found.order]), found.starts)
        assert len(parts) == devices
        assert np.diff(found.starts).min() >= 1
        assert found.starts[-1] == samples
        for i in (0, 777, devices - 1, -1):
            assert np.shares_memory(parts[i].x, parts.whole.x)
            np.testing.assert_array_equal(parts[i].y, labels[found.of_device(i % devices)])
    with pytest.raises(IndexError):
        parts[devices]


def test_a_division_is_that_of_its_owners() -> None:
    found = Division.of(np.array([2, 0, 2, 0]), 4)
    assert [found.of_device(i).tolist() for i in range(4)] == [[1, 3], [], [0, 2], []]


@pytest.mark.data
def test_engines_are_dealt_whole(shared_data: Path) -> None:
    s = DataSection(source="cmapss", path="cmapss", division="group", samples=60, own_held_out=0.2)
    found = examples_of(s, 20, 0, shared_data)
    assert len(found.devices) == len(found.own) == 20
    assert sum(len(p.y) for p in (*found.devices, *found.own)) == 60 * 20
    assert found.held_out.y.shape == (100,)
