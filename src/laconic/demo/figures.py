"""The report's figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from laconic import drawing
from laconic.demo.results import DemoResult, DeviceResult
from laconic.drawing import LIGHT, accuracy_axis, bytes_axis, settings
from laconic.quantities import NBSP, format_joules, format_times, legible


@dataclass(frozen=True, slots=True)
class Series:
    """How one way of training is drawn; told apart by dashes as well as by colour."""

    colour: str
    label: str
    short: str
    dashes: tuple[float, ...]
    width: float


LACONIC: Final = Series("laconic", "Federated, Laconic", "Laconic", (), 2.6)
FEDAVG: Final = Series("fedavg", "Federated, uncompressed FedAvg", "Uncompressed FedAvg", (7, 2), 1.9)
POOLED: Final = Series("pooled", "Pooled: all data in one place", "Pooled in one place", (3, 1.6), 1.9)
ALONE: Final = Series("alone", "Alone: devices that never talk, mean", "Alone, mean", (1, 1.3), 2.2)

MOST_ROWS: Final = 64
"""Devices that a figure by device shows; the table shows all."""
_NAME_LETTERS: Final = 18
Draw = Callable[[Axes, DemoResult], None]


def accuracy_by_round(axes: Axes, result: DemoResult) -> None:
    """The talk's three curves (alone, federated, pooled) and uncompressed FedAvg."""
    runs = [(FEDAVG, result.fedavg), (LACONIC, result.laconic)]
    _line(axes, ALONE, list(range(len(result.alone))), result.alone)
    _line(axes, POOLED, list(range(len(result.pooled))), result.pooled)
    for series, run in runs:
        _line(axes, series, [p.round for p in run.points], [p.accuracy for p in run.points])
    last = max(1, len(result.alone) - 1, len(result.pooled) - 1, *(r.points[-1].round for _, r in runs))
    accuracy_axis(axes)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_xlabel("Round")
    axes.margins(x=0)


def accuracy_by_bytes(axes: Axes, result: DemoResult) -> None:
    """What a byte buys: accuracy against bytes up plus down of all devices since the beginning, log axis."""
    spent: list[float] = []
    for series, run in ((FEDAVG, result.fedavg), (LACONIC, result.laconic)):
        # A log axis has no zero: the untrained model, which cost nothing, is not on it.
        points = [(p.bytes_up + p.bytes_down, p.accuracy) for p in run.points if p.bytes_up + p.bytes_down]
        if points:
            _line(axes, series, *zip(*points, strict=True))
            axes.plot(*points[-1], "o", color=LIGHT[series.colour], markersize=6.5, clip_on=False, zorder=5)
            spent += [x for x, _ in points]
    accuracy_axis(axes)
    bytes_axis(axes, spent)
    axes.set_xlabel("All devices, up plus down (log scale)")
    ends = [r.points[-1] for r in (result.laconic, result.fedavg)]
    ours, theirs = (p.bytes_up + p.bytes_down for p in ends)
    if 0 < 2 * ours < theirs:
        for x, point in zip((ours, theirs), ends, strict=True):
            axes.plot([x, x], [0, point.accuracy], ":", color=LIGHT["muted"], linewidth=1.1, zorder=2)
        arrow = {"arrowstyle": "<->", "color": LIGHT["muted"], "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (ours, 0.05), (theirs, 0.05), arrowprops=arrow)
        words = f"{format_times(result.ratio)} fewer bytes"
        axes.text((ours * theirs) ** 0.5, 0.07, words, ha="center", va="bottom", weight="bold")


def bytes_by_device(axes: Axes, result: DemoResult) -> None:
    """What each device sent (triangle up) and received (triangle down), both runs, log axis."""
    rows, others = _rows(axes, result)
    seen: list[float] = []
    for fleet, series in ((dict(enumerate(rows)), LACONIC), (others, FEDAVG)):
        for marker, counts in (
            ("^", {y: d.bytes_up for y, d in fleet.items() if d.bytes_up}),
            ("v", {y: d.bytes_down for y, d in fleet.items() if d.bytes_down}),
        ):
            axes.plot(list(counts.values()), list(counts), marker, color=LIGHT[series.colour],
                      markersize=9.5 if len(rows) <= 16 else 7, markeredgewidth=0.9,
                      markeredgecolor=LIGHT["surface"], zorder=3)  # fmt: skip
            seen += counts.values()
    axes.grid(visible=True, axis="y")
    bytes_axis(axes, seen)
    axes.set_xlabel("Bytes on the wire (log scale)")


def joules_by_device(axes: Axes, result: DemoResult) -> None:
    """Modelled energy of each device: compute and radio stacked, Laconic above FedAvg."""
    rows, others = _rows(axes, result)
    longest = max(d.joules_compute + d.joules_radio for d in (*rows, *others.values()))
    for fleet, series, offset in ((dict(enumerate(rows)), LACONIC, -0.2), (others, FEDAVG, 0.2)):
        places = [y + offset for y in fleet]
        compute = [d.joules_compute for d in fleet.values()]
        radio = [d.joules_radio for d in fleet.values()]
        axes.barh(places, compute, 0.34, color=LIGHT[series.colour], zorder=3)
        axes.barh(places, radio, 0.34, left=compute, color=LIGHT[series.colour + "-soft"], zorder=3)
        if longest and len(rows) <= 16:
            for y, total in zip(places, map(sum, zip(compute, radio, strict=True)), strict=True):
                words = NBSP + format_joules(total)
                axes.text(total, y, words, va="center", fontsize=9.5, color=LIGHT["muted"])
    axes.set_xlim(0, longest * 1.16 or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_joules(x)))
    axes.set_xlabel("Joules, modelled" if longest else "No joules were modelled")


def svg(draw: Draw, result: DemoResult, *, name: str, label: str, width: int, height: int) -> str:
    """A drawing of a result as `laconic.drawing.svg` makes it."""
    return drawing.svg(lambda axes: draw(axes, result), name=name, label=label, width=width, height=height)


def save_picture(result: DemoResult, path_png: Path) -> None:
    """Accuracy by round and by bytes, side by side, as a PNG on white; same result, same picture."""
    with settings("picture"):
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.06)
        figure = Figure(figsize=(11.5, 4.9), layout=layout)
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        accuracy_by_round(left, result)
        accuracy_by_bytes(right, result)
        left.set_title("Accuracy by round", color=LIGHT["ink"], weight="bold", fontsize=13, pad=12)
        right.set_title(
            "Accuracy by bytes on the wire", color=LIGHT["ink"], weight="bold", fontsize=13, pad=12
        )
        lines = [left.lines[i] for i in (3, 2, 1, 0)]
        labels = [s.short for s in (LACONIC, FEDAVG, POOLED, ALONE)]
        figure.legend(lines, labels, loc="outside lower center", ncols=4, frameon=False, handlelength=2.6)
        figure.savefig(path_png, dpi=160, metadata={"Software": None})


def row_height(devices: int) -> int:
    """Pixels that a row of a figure by device takes."""
    return 30 if devices <= 16 else 17


def _line(axes: Axes, series: Series, x: Sequence[float], y: Sequence[float]) -> None:
    # One point is no line: it needs a mark to be seen.
    style = (0, series.dashes) if series.dashes else "-"
    axes.plot(x, y, linestyle=style, color=LIGHT[series.colour], linewidth=series.width, clip_on=False,
              zorder=4 if series is LACONIC else 3, marker="o" if len(x) < 3 else None)  # fmt: skip


def _rows(axes: Axes, result: DemoResult) -> tuple[list[DeviceResult], dict[int, DeviceResult]]:
    """Prepares one row for each device; also the baseline's device of the same name, by row."""
    rows = result.laconic.devices[:MOST_ROWS]
    names = [legible(d.name) for d in rows]
    short = [n if len(n) <= _NAME_LETTERS else n[: _NAME_LETTERS - 1] + "…" for n in names]
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), short, fontsize=11.5 if len(rows) <= 16 else 9.5)
    axes.tick_params(axis="y", labelcolor=LIGHT["ink"])
    axes.grid(visible=False, axis="y")
    baseline = {d.name: d for d in result.fedavg.devices}
    return rows, {y: baseline[d.name] for y, d in enumerate(rows) if d.name in baseline}
