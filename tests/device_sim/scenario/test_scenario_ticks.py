"""Ticks say where they are: no two are written alike, and none is written as what it is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from laconic.device_sim.report import ticks

EACH = dict(ticks.BYTES) | dict(ticks.JOULES)


def written(axes: Axes) -> list[str]:
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    return [t.get_text().replace("\xa0", " ") for t in axes.get_xticklabels()]


def plotted(most: float) -> Axes:
    axes = Figure().add_subplot()
    axes.plot([0.0, most], [0.0, 1.0])
    axes.set_xlim(left=0)
    return axes


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-6, 1e15), st.sampled_from([ticks.BYTES, ticks.JOULES]))
def test_ticks_are_where_they_say_they_are(most: float, units: tuple[tuple[str, float], ...]) -> None:
    axes = plotted(most)
    ticks.numbers(axes, units)
    labels = written(axes)
    assert len(labels) == len(set(labels))
    step = abs(axes.get_xticks()[1] - axes.get_xticks()[0])
    for at, label in zip(axes.get_xticks(), labels, strict=True):
        number, unit = label.split(" ")
        assert float(number) * EACH[unit] == pytest.approx(at, abs=1e-3 * step)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 1e7))
def test_times_are_where_they_say_they_are(most_s: float) -> None:
    axes = plotted(most_s)
    ticks.times(axes, "{} since noon", each_s=1.0)
    labels = written(axes)
    assert len(labels) >= 3
    assert len(labels) == len(set(labels))
    unit = axes.get_xlabel().partition(" ")[0].lower()
    each = {"milliseconds": 1e-3, "seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86_400.0}[unit]
    for at, label in zip(axes.get_xticks(), labels, strict=True):
        assert float(label) * each == pytest.approx(at, abs=1e-6 * most_s)


@pytest.mark.parametrize(
    ("most_s", "expected", "label"),
    [
        (0.3, ["0", "60", "120", "180", "240", "300"], "Milliseconds since noon"),
        (1.25, ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25"], "Seconds since noon"),
        (300.0, ["0", "1", "2", "3", "4", "5"], "Minutes since noon"),
    ],
)
def test_a_quarter_of_a_second_has_two_decimals(most_s: float, expected: list[str], label: str) -> None:
    axes = plotted(most_s)
    ticks.times(axes, "{} since noon", each_s=1.0)
    assert written(axes) == expected
    assert axes.get_xlabel() == label


def test_what_went_nowhere_has_plain_ticks_from_zero() -> None:
    axes = plotted(0.0)
    ticks.numbers(axes, ticks.BYTES, whole=True)
    assert written(axes) == ["0 B", "1 B"]
    axes = plotted(0.0)
    ticks.numbers(axes, whole=True)
    assert written(axes) == ["0", "1"]
    axes = plotted(0.0)
    ticks.times(axes, "{}", each_s=3600.0)
    assert len(written(axes)) >= 3
    assert axes.get_xlim()[0] == 0.0
    assert not [w for w in written(axes) if "e" in w]
    bars = Figure().add_subplot()
    bars.bar([0, 1, 2], [0, 0, 0])
    ticks.counts(bars)
    assert bars.get_ylim() == (0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 250.0, 500.0, 750.0, 1000.0], ["0 B", "250 B", "500 B", "750 B", "1000 B"]),
        ([0.0, 6e5, 1.2e6, 1.8e6], ["0.0 MB", "0.6 MB", "1.2 MB", "1.8 MB"]),
        ([-1e-16, 8e6], ["0 MB", "8 MB"]),
        ([0.0], ["0 B"]),
        ([], []),
    ],
)
def test_units_and_decimals_are_those_of_the_whole_axis(values: list[float], expected: list[str]) -> None:
    assert [w.replace("\xa0", " ") for w in ticks.Unit(ticks.BYTES).format_ticks(values)] == expected
