"""The report's figures: drawn by matplotlib, once as SVG that follows the page's colours, once as a picture.

Every colour is one of `PALETTE`. A picture uses the light ones as they are; in an SVG each becomes a CSS
variable, so that one drawing serves light and dark pages.
"""

from __future__ import annotations

import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from laconic.demo.quantities import NBSP, format_bytes, format_joules, format_times, legible
from laconic.demo.results import DemoResult, DeviceResult

# Name: (on a light page, on a dark page). No two light colours may be equal.
PALETTE: Final[dict[str, tuple[str, str]]] = {
    "page": ("#f5f6f8", "#0e131a"),
    "surface": ("#ffffff", "#171d26"),
    "ink": ("#18202c", "#e9eef5"),
    "muted": ("#566173", "#9fabbb"),
    "grid": ("#e2e6ec", "#2b3542"),
    "laconic": ("#0a5fc2", "#6cb0ff"),
    "laconic-soft": ("#93c0f2", "#2c5a91"),
    "fedavg": ("#bd4a06", "#ff9d5c"),
    "fedavg-soft": ("#f2b68c", "#8c4f28"),
    "pooled": ("#0c7a5c", "#4fcfa5"),
    "alone": ("#6d7683", "#98a2af"),
}
_LIGHT: Final = {name: light for name, (light, _) in PALETTE.items()}


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
_TICK_LABEL_WIDTH: Final = 60
_RC: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 12.5,
    "text.color": _LIGHT["ink"],
    "text.parse_math": False,
    "axes.edgecolor": _LIGHT["grid"],
    "axes.facecolor": _LIGHT["surface"],
    "axes.labelcolor": _LIGHT["muted"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _LIGHT["muted"],
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LIGHT["grid"],
    "grid.linewidth": 1.0,
    "xtick.color": _LIGHT["grid"],
    "xtick.labelcolor": _LIGHT["muted"],
    "ytick.color": _LIGHT["grid"],
    "ytick.labelcolor": _LIGHT["muted"],
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": _LIGHT["surface"],
    "lines.solid_capstyle": "round",
    "lines.dash_capstyle": "butt",
    "svg.fonttype": "none",
}

Draw = Callable[[Axes, DemoResult], None]


def accuracy_by_round(axes: Axes, result: DemoResult) -> None:
    """The talk's three curves (alone, federated, pooled) and uncompressed FedAvg."""
    runs = [(FEDAVG, result.fedavg), (LACONIC, result.laconic)]
    _line(axes, ALONE, list(range(len(result.alone))), result.alone)
    _line(axes, POOLED, list(range(len(result.pooled))), result.pooled)
    for series, run in runs:
        _line(axes, series, [p.round for p in run.points], [p.accuracy for p in run.points])
    last = max(1, len(result.alone) - 1, len(result.pooled) - 1, *(r.points[-1].round for _, r in runs))
    _accuracy_axis(axes)
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
            axes.plot(*points[-1], "o", color=_LIGHT[series.colour], markersize=6.5, clip_on=False, zorder=5)
            spent += [x for x, _ in points]
    _accuracy_axis(axes)
    _bytes_axis(axes, spent)
    axes.set_xlabel("All devices, up plus down (log scale)")
    ends = [r.points[-1] for r in (result.laconic, result.fedavg)]
    ours, theirs = (p.bytes_up + p.bytes_down for p in ends)
    if 0 < 2 * ours < theirs:
        for x, point in zip((ours, theirs), ends, strict=True):
            axes.plot([x, x], [0, point.accuracy], ":", color=_LIGHT["muted"], linewidth=1.1, zorder=2)
        arrow = {"arrowstyle": "<->", "color": _LIGHT["muted"], "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
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
            axes.plot(list(counts.values()), list(counts), marker, color=_LIGHT[series.colour],
                      markersize=9.5 if len(rows) <= 16 else 7, markeredgewidth=0.9,
                      markeredgecolor=_LIGHT["surface"], zorder=3)  # fmt: skip
            seen += counts.values()
    axes.grid(visible=True, axis="y")
    _bytes_axis(axes, seen)
    axes.set_xlabel("Bytes on the wire (log scale)")


def joules_by_device(axes: Axes, result: DemoResult) -> None:
    """Modelled energy of each device: compute and radio stacked, Laconic above FedAvg."""
    rows, others = _rows(axes, result)
    longest = max(d.joules_compute + d.joules_radio for d in (*rows, *others.values()))
    for fleet, series, offset in ((dict(enumerate(rows)), LACONIC, -0.2), (others, FEDAVG, 0.2)):
        places = [y + offset for y in fleet]
        compute = [d.joules_compute for d in fleet.values()]
        radio = [d.joules_radio for d in fleet.values()]
        axes.barh(places, compute, 0.34, color=_LIGHT[series.colour], zorder=3)
        axes.barh(places, radio, 0.34, left=compute, color=_LIGHT[series.colour + "-soft"], zorder=3)
        if longest and len(rows) <= 16:
            for y, total in zip(places, map(sum, zip(compute, radio, strict=True)), strict=True):
                words = NBSP + format_joules(total)
                axes.text(total, y, words, va="center", fontsize=9.5, color=_LIGHT["muted"])
    axes.set_xlim(0, longest * 1.16 or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_joules(x)))
    axes.set_xlabel("Joules, modelled" if longest else "No joules were modelled")


def svg(draw: Draw, result: DemoResult, *, name: str, label: str, width: int, height: int) -> str:
    """A drawing as an inline SVG element, text as text, its `aria-label` as given; sizes in CSS pixels.

    `name` must be unique on the page: it begins every id. The same arguments give the same bytes.
    """
    with _settings(name):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot(), result)
        buffer = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return _inline(ET.fromstring(buffer.getvalue()), name, label)


def save_picture(result: DemoResult, path_png: Path) -> None:
    """Accuracy by round and by bytes, side by side, as a PNG on white; same result, same picture."""
    with _settings("picture"):
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.06)
        figure = Figure(figsize=(11.5, 4.9), layout=layout)
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        accuracy_by_round(left, result)
        accuracy_by_bytes(right, result)
        left.set_title("Accuracy by round", color=_LIGHT["ink"], weight="bold", fontsize=13, pad=12)
        right.set_title(
            "Accuracy by bytes on the wire", color=_LIGHT["ink"], weight="bold", fontsize=13, pad=12
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
    axes.plot(x, y, linestyle=style, color=_LIGHT[series.colour], linewidth=series.width, clip_on=False,
              zorder=4 if series is LACONIC else 3, marker="o" if len(x) < 3 else None)  # fmt: skip


def _accuracy_axis(axes: Axes) -> None:
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}{NBSP}%"))
    axes.grid(visible=False, axis="x")


def _bytes_axis(axes: Axes, values: Sequence[float]) -> None:
    low, high = (min(values), max(values)) if values else (1e3, 1e6)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.5, high * 1.5)
    axes.xaxis.set_major_locator(LogLocator(subs=_steps(axes)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_bytes(x)))


def _steps(axes: Axes) -> tuple[float, ...]:
    """Labelled steps within each decade of a log axis: as many as there is room for."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = axes.get_position().width * figure.get_size_inches()[0] * 72 / _TICK_LABEL_WIDTH
    low, high = axes.get_xlim()
    choices = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
    return next((c for c in choices if math.log10(high / low) * len(c) <= room), choices[-1])


def _rows(axes: Axes, result: DemoResult) -> tuple[list[DeviceResult], dict[int, DeviceResult]]:
    """Prepares one row for each device; also the baseline's device of the same name, by row."""
    rows = result.laconic.devices[:MOST_ROWS]
    names = [legible(d.name) for d in rows]
    short = [n if len(n) <= _NAME_LETTERS else n[: _NAME_LETTERS - 1] + "…" for n in names]
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), short, fontsize=11.5 if len(rows) <= 16 else 9.5)
    axes.tick_params(axis="y", labelcolor=_LIGHT["ink"])
    axes.grid(visible=False, axis="y")
    baseline = {d.name: d for d in result.fedavg.devices}
    return rows, {y: baseline[d.name] for y, d in enumerate(rows) if d.name in baseline}


@contextmanager
def _settings(salt: str) -> Iterator[None]:
    """Matplotlib as this module wants it, whatever the user's own settings say."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        # Typed by the names of one matplotlib's settings, which another's may lack.
        settings: Any = matplotlib.rcParams
        settings.update(_RC | {"svg.hashsalt": salt})
        # A device's name may be in any script; the browser has the letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph")
        yield


def _inline(root: ET.Element, name: str, label: str) -> str:
    variables = {light: f"var(--{colour})" for colour, light in _LIGHT.items()}
    used = set(re.findall(r"#([\w.-]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        # Matplotlib's own rule is for every element of a document, which would be the whole page.
        for child in [c for c in element if c.tag.endswith(("}style", "}metadata"))]:
            element.remove(child)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            if key == "id":
                if value in used:
                    element.set("id", f"{name}-{value}")
            elif key.endswith("}href"):
                element.set("href", f"#{name}-{value[1:]}")
            else:
                value = re.sub(r"#[0-9a-f]{6}\b", lambda m: variables.get(m[0], m[0]), value)
                element.set(key, value.replace("url(#", f"url(#{name}-"))
    root.attrib = {"class": "plot", "viewBox": root.get("viewBox", ""), "role": "img", "aria-label": label}
    return ET.tostring(root, encoding="unicode")
