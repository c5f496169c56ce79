"""Laws of transform 07: what is written is read, to the bit, here and by the second decoder."""

from __future__ import annotations

import numpy as np
import pytest
from codec_cases import schema_of
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_decoder import Frame

from laconic.compression import decode
from laconic.compression.frame import wrap
from laconic.compression.transforms.grid import Steps
from laconic.compression.transforms.multiples import MOST, MULTIPLES, magnitudes_of
from often import examples


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, int, Steps]:
    """Levels, not all 0, in rows and columns of different sizes and signs; how many columns; steps."""
    rows, columns = draw(st.integers(1, 30)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.0, 1.0, 4.0]))
    sizes = np.outer(2.0 ** (spread * rng.standard_normal(rows)), 2.0 ** rng.standard_normal(columns))
    levels = np.rint(np.minimum(draw(st.sampled_from([0.5, 3.0, 900.0])) * sizes * rng.exponential(), MOST))
    signs = np.where(rng.random((rows, columns)) < rng.random((rows, 1)), -1, 1)
    levels = (levels * signs).astype(np.int64).ravel()
    levels[int(rng.integers(levels.size))] = draw(st.sampled_from([1, -1, 8, -MOST]))
    offsets = tuple(draw(st.lists(st.integers(0, 255), max_size=4)))
    return levels, columns, Steps(2.0 ** draw(st.integers(-120, 90)), 1, offsets)


@given(matrices())
@settings(max_examples=examples(150), deadline=None)
def test_levels_come_back(case):
    levels, columns, steps = case
    schema = schema_of((levels.size // columns, columns))
    part = MULTIPLES.write(levels, columns, steps)
    assert part is not None
    frame = wrap(schema, (), [part])
    expected = magnitudes_of(np.abs(levels), steps)
    expected[levels < 0] *= -1
    found = decode(frame, schema, limit_bytes=4 * schema.size)
    assert found.tobytes() == expected.tobytes()
    assert np.array(Frame(frame).vector([schema.size]), np.float32).tobytes() == expected.tobytes()


@pytest.mark.parametrize("beyond", [MOST + 1, -MOST - 1])
def test_a_level_beyond_the_largest_is_not_written(beyond):
    assert MULTIPLES.write(np.array([0, beyond, 3]), 3, Steps(1.0, 1, ())) is None


def test_rows_and_columns_of_different_sizes_cost_less_than_the_same_levels_shuffled():
    rng = np.random.default_rng(2)
    sizes = np.outer(2.0 ** rng.uniform(-3, 3, 120), 2.0 ** rng.uniform(-1, 1, 100))
    levels = np.rint(4 * sizes * rng.laplace(size=sizes.shape)).astype(np.int64).ravel()
    ordered = MULTIPLES.write(levels, 100, Steps(1.0, 1, ()))
    shuffled = MULTIPLES.write(rng.permutation(levels), 100, Steps(1.0, 1, ()))
    assert ordered is not None
    assert shuffled is not None
    assert len(ordered) < 0.92 * len(shuffled)
