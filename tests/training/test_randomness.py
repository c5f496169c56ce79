"""Laws of the random bits: the same everywhere for one seed, and fair in every way that a mask could show."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from laconic.training.assemble import assemble, model
from laconic.training.builder import BATCH, GraphBuilder, Shape, TensorType
from laconic.training.randomness import keep_mask, uniform_bits
from often import examples

seeds = st.integers(-(2**63), 2**63 - 1)
SAMPLE = (16, 14, 14)
BATCH_SIZE = 32
KNOWN = [1810316053, 1711259221, 2558160277, 773262949, 1312520345, 3718083801, 402492697, 3843984425]


@cache
def file(shape: Shape, ratio: float | None) -> bytes:
    g = GraphBuilder()
    g.declare("x", TensorProto.FLOAT, shape)
    g.declare("seed", TensorProto.INT64, ())
    if ratio is None:
        bits = uniform_bits(g, "seed", "x")
        result = (
            g.op("BitwiseXor", bits, g.constant(np.array(0, np.int32))),
            TensorType(TensorProto.INT32, ("r", "c")),
        )
    else:
        result = (keep_mask(g, "seed", "x", ratio), TensorType(TensorProto.FLOAT, shape))
    return model(assemble(g, "random", ["x", "seed"], {"out": result}))


@cache
def session(shape: Shape, ratio: float | None) -> ort.InferenceSession:
    return ort.InferenceSession(file(shape, ratio))


def drawn(seed: int, size: tuple[int, ...], ratio: float | None, batched: bool = True) -> NDArray[np.generic]:
    shape: Shape = (BATCH, *size[1:]) if batched and size else size
    feeds = {"x": np.zeros(size, np.float32), "seed": np.array(seed, np.int64)}
    result: NDArray[np.generic] = session(shape, ratio).run(None, feeds)[0]
    return result


def bits(seed: int, size: tuple[int, ...] = (BATCH_SIZE, *SAMPLE)) -> NDArray[np.uint32]:
    return drawn(seed, size, None).view(np.uint32)


@cache
def signs(seed: int) -> NDArray[np.float64]:
    """+1 or -1, by the bit that decides at ratio 0.5."""
    return np.where(bits(seed).view(np.int32) > 0, 1.0, -1.0)


def deviations(total: NDArray[np.float64] | np.float64, count: int) -> float:
    """The largest of some sums of `count` fair signs, in standard deviations."""
    return float(np.max(np.abs(total))) / np.sqrt(count)


@settings(max_examples=examples(20), deadline=None)
@given(seeds, st.sampled_from([(), (1,), (7,), (3, 8), (2, 3, 4), (2, 3, 5, 4)]), st.booleans())
def test_two_implementations_of_the_operators_draw_the_same_bits(
    seed: int, size: tuple[int, ...], batched: bool
) -> None:
    shape: Shape = (BATCH, *size[1:]) if batched and size else size
    feeds = {"x": np.zeros(size, np.float32), "seed": np.array(seed, np.int64)}
    for ratio in (None, 0.25):
        due = ReferenceEvaluator(file(shape, ratio)).run(None, feeds)[0]
        np.testing.assert_array_equal(drawn(seed, size, ratio, batched), due)


@settings(max_examples=examples(20), deadline=None)
@given(seeds, st.sampled_from([(8,), (5, 6), (4, 3, 3)]), st.integers(1, 9))
def test_the_mask_of_a_sample_does_not_depend_on_the_size_of_its_batch(
    seed: int, sample: tuple[int, ...], batch: int
) -> None:
    whole = drawn(seed, (10, *sample), 0.5)
    np.testing.assert_array_equal(drawn(seed, (batch, *sample), 0.5), whole[:batch])


def test_known_bits_stay_the_same_in_all_versions() -> None:
    """A run that is repeated with a later release repeats its masks."""
    assert bits(7, (2, 4)).ravel().tolist() == KNOWN


@pytest.mark.parametrize("ratio", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_the_keep_rate_is_one_minus_the_ratio(seed: int, ratio: float) -> None:
    kept = drawn(seed, (BATCH_SIZE, *SAMPLE), ratio) > 0
    assert deviations(kept.sum() - kept.size * (1 - ratio), int(kept.size * ratio * (1 - ratio)) + 1) < 4.5


def test_rows_and_columns_are_fair_each_for_itself() -> None:
    for seed in range(4):
        s = signs(seed)
        assert deviations(s.sum(0), s.shape[0]) < 5.5
        assert deviations(s.sum(1), s.shape[1]) < 5.5


def test_neighbours_are_independent() -> None:
    flat = signs(3).ravel()
    for lag in range(1, 300):
        assert deviations(flat[:-lag] @ flat[lag:], flat.size - lag) < 5


def test_rows_and_columns_are_independent_of_one_another() -> None:
    s = signs(5)
    for matrix in (s, s.T):
        products = matrix @ matrix.T
        np.fill_diagonal(products, 0)
        assert deviations(products, matrix.shape[1]) < 6.5


def test_the_corners_of_rectangles_are_independent() -> None:
    """A hash of a row joined to a hash of a column by exclusive or would fail here."""
    s, rng = signs(5), np.random.default_rng(0)
    i, k = rng.integers(0, s.shape[0], (2, 200_000))
    j, m = rng.integers(0, s.shape[1], (2, 200_000))
    apart = (i != k) & (j != m)
    corners = (s[i, j] * s[k, j] * s[i, m] * s[k, m])[apart]
    assert deviations(corners.sum(), corners.size) < 4.5


@pytest.mark.parametrize("stride", [1, 2, 1000, 2**16, 2**31, 2**32, 2**48, 0x9E3779B1])
def test_seeds_are_independent_however_they_are_counted(stride: int) -> None:
    several = np.array([signs(11 + k * stride).ravel() for k in range(12)])
    products = several @ several.T
    np.fill_diagonal(products, 0)
    assert deviations(products, several.shape[1]) < 5


def test_no_seed_gives_the_rows_of_another_one_shifted() -> None:
    rows = [bits(seed)[:, :4] for seed in range(200)]
    seen = np.concatenate(rows).view([("", np.uint32)] * 4).ravel()
    assert len(np.unique(seen)) == len(seen)


def test_high_bits_are_uniform() -> None:
    for seed in (1, 2):
        counts = np.bincount(bits(seed).ravel() >> 22, minlength=1024)
        expected = counts.sum() / 1024
        chi_square = float(np.sum((counts - expected) ** 2) / expected)
        assert abs(chi_square - 1023) < 5 * np.sqrt(2 * 1023)
