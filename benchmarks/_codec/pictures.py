"""The curves of docs/choosing-a-preset.md, drawn from the benchmark's results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from _environments import ROOT
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

DOCS = ROOT / "docs"

OURS, NEUTRAL = "#0a5fc2", "#6d7683"
COLOURS: Mapping[str, str] = {
    "float32": "#18202c",
    "8-bit": "#bd4a06",
    "4-bit": "#d99a1c",
    "STC 1 %": "#0c7a5c",
    "small": OURS,
    "tiny": "#7b3fc4",
    "fast": "#5aa7e8",
}
PEERS: Mapping[str, str] = {
    "Laconic": OURS,
    "NNC": "#7b3fc4",
    "STC": "#0c7a5c",
    "top-k 4-bit, zstd": "#bd4a06",
    "4-bit, zstd": "#d99a1c",
    "8-bit, zstd": "#566173",
}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.grid": True,
    "grid.color": "#e2e6ec",
    "axes.edgecolor": "#c3cad4",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "codec",
}


def draw(results: Mapping[str, Any]) -> None:
    """The pictures of the parts that there are results of."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(STYLE)
        if "learning" in results:
            _save(_learning(results["learning"]), "codec-learning.png")
        if "distortion" in results:
            _save(_distortion(results["distortion"]), "codec-distortion.png")


def _learning(found: Mapping[str, Any]) -> Figure:
    """Accuracy against megabytes, a panel for each task and skew; a line goes through the rounds."""
    cells = list(found["table"])
    tasks = list(dict.fromkeys(c.partition(",")[0] for c in cells))
    across = len(cells) // len(tasks)
    figure = Figure(figsize=(4.1 * across, 3.4 * len(tasks)), layout="constrained")
    for i, cell in enumerate(cells):
        axes = figure.add_subplot(len(tasks), across, i + 1)
        task, _, skew = cell.partition(", skew ")
        runs = [r for r in found["runs"] if r["task"] == task and r["skew"] == float(skew)]
        for codec, colour in COLOURS.items():
            of = [r for r in runs if r["curve"] == codec]
            if of:
                x = [statistics.mean(x) for x in zip(*(r["megabytes"] for r in of), strict=True)]
                y = [100 * statistics.mean(y) for y in zip(*(r["accuracies"] for r in of), strict=True)]
                width = 2.2 if codec in ("small", "tiny") else 1.4
                axes.plot(x, _smooth(y), color=colour, lw=width, label=codec)
                axes.plot(x[-1:], _smooth(y)[-1:], "o", color=colour, ms=4)
        axes.set_title(
            f"{task}, {100 * float(skew):.0f} % of one class a device" if float(skew) else f"{task}, uniform",
            fontsize=11,
        )
        _megabytes(axes)
        axes.set_ylabel("accuracy, %")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _distortion(found: Mapping[str, Any]) -> Figure:
    """Bytes against error, a panel for each of four updates."""
    rows = found["rows"]
    updates = [u for u in dict.fromkeys(r["update"] for r in rows) if u.endswith("device0")]
    chosen = [u for u in updates if u.split("/")[0] in ("digits-90", "mlp-90")]
    figure = Figure(figsize=(9.4, 7.4), layout="constrained")
    for i, update in enumerate(chosen[:4]):
        axes = figure.add_subplot(2, 2, i + 1)
        for peer, colour in PEERS.items():
            of = [r for r in rows if r["update"] == update and r["ratio"] is not None]
            if peer == "Laconic":
                points = sorted({(r["error"], r["bytes"]) for r in of})
            else:
                points = sorted({(r["peer_error"], r["peer_bytes"]) for r in of if r["peer"] == peer})
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(
                    x,
                    [b / 1e3 for b in y],
                    "o-",
                    color=colour,
                    lw=2.2 if peer == "Laconic" else 1.4,
                    ms=4,
                    label=peer,
                )
        axes.set_yscale("log")
        axes.set_ylabel("kB (log)")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.set_xlabel("relative L2 error")
        file, optimizer, number, _ = update.split("/")
        axes.set_title(f"{file.replace('-', ', ')} % of one class, {optimizer}, round {number}", fontsize=11)
    if figure.axes:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _smooth(values: Sequence[float], over: int = 3) -> list[float]:
    """Means of up to `over` rounds: accuracy goes up and down by points from one to the next."""
    return [statistics.mean(values[max(0, i - over + 1) : i + 1]) for i in range(len(values))]


def _megabytes(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("MB up and down, all devices (log)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def _save(figure: Figure, name: str) -> Path:
    path = DOCS / name
    # Without a date and a version, the same figures give the same file.
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path
