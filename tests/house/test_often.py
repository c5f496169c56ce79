"""Laws of tests/often.py: a soak leaves nothing out, and what is left out otherwise is a part of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import settings

from often import LEAST_EXAMPLES, examples, points


@pytest.fixture
def before() -> Iterator[None]:
    """The profile that was loaded is loaded again afterwards."""
    settings.register_profile("before", settings.default)
    yield
    settings.load_profile("before")


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("full", [1, 3, 5, 8, 20, 100, 300])
def test_a_soak_tries_all_examples_and_otherwise_there_are_fewer_but_never_none(full: int) -> None:
    settings.load_profile("soak")
    assert examples(full) == full
    settings.load_profile("fast")
    assert min(full, LEAST_EXAMPLES) <= examples(full) <= full
    assert examples(100) < 50


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize(("start", "stop", "stride"), [(0, 80, 3), (5, 81, 7), (0, 1, 3), (0, 0, 3)])
def test_a_soak_takes_every_point_and_otherwise_even_and_odd_ones_in_turn(
    start: int, stop: int, stride: int
) -> None:
    settings.load_profile("soak")
    assert list(points(start, stop, stride=stride)) == list(range(start, stop))
    settings.load_profile("fast")
    some = list(points(start, stop, stride=stride))
    assert set(some) <= set(range(start, stop))
    assert len(some) == -(-(stop - start) // stride)
    assert all((b - a) % 2 for a, b in pairwise(some))
