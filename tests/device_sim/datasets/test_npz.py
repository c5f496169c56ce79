"""A file's own examples: what it holds out is nobody's, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from laconic.device_sim.datasets import npz


def test_groups_below_zero_are_held_out(tmp_path: Path) -> None:
    group = np.array([1, -1, 0, 1, -2])
    np.savez(tmp_path / "a.npz", x=np.arange(5.0)[:, None].astype(np.float32), y=np.arange(5), group=group)
    found = npz.load(tmp_path / "a.npz")
    assert found.train.y.tolist() == [0, 2, 3]
    assert found.train.group is not None
    assert found.train.group.tolist() == [1, 0, 1]
    assert found.held_out is not None
    assert found.held_out.y.tolist() == [1, 4]
    assert found.held_out.x.ravel().tolist() == [1.0, 4.0]


def test_without_them_nothing_is_held_out_by_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 1), np.float32), y=np.zeros(2, np.float64), group=[0, 1])
    found = npz.load(tmp_path / "a.npz")
    assert found.held_out is None
    assert found.train.y.dtype == np.float32
