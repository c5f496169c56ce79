"""Pictures of runs: names take no room from drawings."""

from __future__ import annotations

import warnings

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from laconic import drawing
from laconic.drawing import Draw


def lines(names: list[str]) -> Draw:
    def draw(axes: Axes) -> None:
        for y, name in enumerate(names):
            axes.plot([0, 1], [y, y + 1], label=name)
        axes.set_xlabel("Round")

    return draw


def drawn(draws: list[tuple[str, Draw]], columns: int) -> Figure:
    """A picture with its layout; no warning is let pass."""
    with drawing.settings("picture"), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = drawing.picture(draws, columns=columns)
        figure.draw_without_rendering()
    return figure


LONG = [
    f"data.alpha={a}, gate.threshold={t}, training.epochs={e}"
    for a in (0.1, 1.0)
    for t in (0.0, 0.1)
    for e in (1, 2)
]
ENDLESS = [", ".join(f"classes.sensor-{i}.speed.sample_s={i}" for i in range(12)), "b"]


@pytest.mark.parametrize("names", [["a"], LONG, ENDLESS, LONG * 4], ids=["one", "long", "endless", "many"])
@pytest.mark.parametrize("columns", [1, 2])
def test_drawings_keep_their_size_whatever_their_names(names: list[str], columns: int) -> None:
    figure = drawn([(t, lines(names)) for t in ("by round", "by time")], columns)
    assert len(figure.legends) == 1
    width, height = figure.get_size_inches()
    for axes in figure.axes:
        assert axes.get_legend() is None
        assert axes.get_position().width > 0.75 / columns
        assert axes.get_position().height * height > 2.5
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= width * figure.dpi
    for axes in figure.axes:
        outline = axes.get_tightbbox()
        assert outline is not None
        assert box.y1 < outline.y0


def test_drawings_of_different_names_have_their_own_legends_which_fit() -> None:
    figure = drawn([("a", lines(LONG)), ("b", lines(["idle", "useful"]))], 2)
    assert not figure.legends
    width, height = figure.get_size_inches()
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        box = legend.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= width * figure.dpi
        assert axes.get_position().width > 0.35
        assert axes.get_position().height * height > 2.5
