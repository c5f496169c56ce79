"""A quarter turn moves pixels and changes none; turns add up; nothing is brighter than before."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.device_sim.datasets.turning import turned
from often import examples


def images(side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((2, 3, side, side)).astype(np.float32)


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(1, 9), st.integers(-5, 5), st.integers(0, 99))
def test_quarter_turns_are_numpys(side: int, quarters: int, seed: int) -> None:
    x = images(side, seed)
    np.testing.assert_allclose(turned(x, 90.0 * quarters), np.rot90(x, quarters, (2, 3)), atol=1e-5)


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(1, 9), st.floats(-720, 720), st.integers(0, 99))
def test_pixels_are_between_their_neighbours_and_the_dark(side: int, degrees: float, seed: int) -> None:
    x = images(side, seed)
    found = turned(x, degrees)
    assert found.dtype == np.float32
    assert found.shape == x.shape
    assert found.min() >= -1e-6
    assert found.max() <= x.max() + 1e-5


def test_what_is_smooth_comes_back() -> None:
    down, across = np.mgrid[:28, :28] - 13.5
    blob = np.exp(-((down - 3) ** 2 + (across + 2) ** 2) / 18)[None, None].astype(np.float32)
    np.testing.assert_allclose(turned(turned(blob, 33.0), -33.0), blob, atol=0.05)
    assert np.array_equal(turned(blob, 0.0), blob)
