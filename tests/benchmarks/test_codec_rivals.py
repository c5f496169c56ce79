"""Laws of what the codec is compared with: a rival that is wrong would make every ratio worthless."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("sklearn", reason="the benchmark's data sets come with scikit-learn")

from _codec import peers
from _codec.baselines import stc_decode, stc_encode

from laconic.schema import Schema, TensorSpec, Vector

SEEDS = st.integers(0, 1000)


def heavy_tailed(seed: int, size: int) -> Vector:
    return np.random.default_rng(seed).standard_t(3, size).astype(np.float32)


def spread(seed: int, size: int) -> Vector:
    """Without single values that hold much of the norm: an error can then be kept to closely."""
    return np.random.default_rng(seed).laplace(size=size).astype(np.float32)


def largest_positions(update: Vector, count: int) -> NDArray[np.int64]:
    return np.sort(np.argsort(-np.abs(update), kind="stable")[:count])


# --- sparse ternary compression ----------------------------------------------------------------------------


@given(seed=SEEDS, size=st.integers(2, 3000), density=st.floats(0.0005, 0.95))
def test_stc_sends_the_largest_values_at_their_mean_with_their_signs(
    seed: int, size: int, density: float
) -> None:
    update = heavy_tailed(seed, size)
    decoded = stc_decode(stc_encode(update, density), size)
    count = max(1, round(density * size))
    kept = largest_positions(update, count)
    expected = np.zeros(size, np.float32)
    expected[kept] = np.abs(update[kept]).mean() * np.sign(update[kept])
    np.testing.assert_allclose(decoded, expected, rtol=1e-6)


@pytest.mark.parametrize("density", [0.001, 0.01, 0.1])
def test_stc_has_the_length_that_golombs_code_promises(density: float) -> None:
    size = 400_000
    update = heavy_tailed(0, size)
    frame = stc_encode(update, density)
    # Equation 17 of Sattler et al.: bits a position at the best parameter, for gaps of a geometric law.
    parameter = 1 + math.floor(math.log2(math.log((math.sqrt(5) - 1) / 2) / math.log(1 - density)))
    bits = parameter + 1 / (1 - (1 - density) ** (2**parameter))
    promised = round(density * size) * (bits + 1) / 8
    assert len(frame) - 16 == pytest.approx(promised, rel=0.02)


# --- at an error -------------------------------------------------------------------------------------------


@given(seed=SEEDS, error=st.floats(0.3, 0.95))
def test_top_k_keeps_to_the_error_with_about_as_few_values_as_can_be(seed: int, error: float) -> None:
    update = spread(seed, 2000)
    point = peers.top_k_at(update, error)
    assert point is not None
    # Kept values are quantised, so the error does not fall with every one of them; it does over a few.
    assert error - 0.02 <= point.error <= error


@given(seed=SEEDS, error=st.floats(0.56, 0.95))
def test_stc_keeps_to_the_error(seed: int, error: float) -> None:
    update = spread(seed, 2000)
    point = peers.stc_at(update, error)
    assert point is not None
    assert error - 0.02 <= point.error <= error + 1e-6


def test_an_error_that_a_rival_cannot_reach_is_told() -> None:
    update = heavy_tailed(0, 2000)
    assert peers.stc_at(update, 0.05) is None
    assert peers.top_k_at(update, 0.01) is None


@pytest.mark.parametrize(("bits", "most"), [(8, 0.03), (4, 0.6)])
def test_dense_levels_are_off_by_half_a_step_at_most(bits: int, most: float) -> None:
    update = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    schema = Schema((TensorSpec("a", (100, 100)), TensorSpec("b", (100, 100))))
    point = peers.dense(update, schema, bits)
    steps = [float(np.abs(update[s]).max()) / (2 ** (bits - 1) - 1) for s in schema.slices]
    assert 0 < point.error <= math.sqrt(np.mean(np.square(steps)) / 12) * 1.05 < most
    # Shannon's bound for normal values at this error, and what a plain code of `bits` bits would take.
    assert 20_000 / 8 * -math.log2(point.error) < point.bytes <= 20_000 * bits / 8 + 64


def test_a_rivals_zstd_finds_what_repeats() -> None:
    update = np.tile(heavy_tailed(1, 500), 40)
    schema = Schema((TensorSpec("a", (20_000,)),))
    once = len(zlib.compress(heavy_tailed(1, 500).tobytes()))
    assert peers.dense(update, schema, 8).bytes < once
