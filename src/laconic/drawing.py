"""Drawings by matplotlib, once as SVG that follows a page's colours, once as pictures.

Every colour is one of `PALETTE`. A picture uses the light ones as they are; in an SVG each becomes a CSS
variable, so that one drawing serves light and dark pages.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from laconic.quantities import NBSP, format_bytes

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
    "pooled-soft": ("#93d0bc", "#2a6a57"),
    "alone": ("#6d7683", "#98a2af"),
    "violet": ("#6a3fb5", "#b99af5"),
    "rose": ("#b8235a", "#ff8fb3"),
    "gold": ("#9a7400", "#e3c04d"),
}
Draw = Callable[[Axes], None]
LIGHT: Final = {name: light for name, (light, _) in PALETTE.items()}

_TICK_LABEL_WIDTH: Final = 60
_PICTURE_WIDTH: Final = 5.75
_PICTURE_HEIGHT: Final = 4.6
"""Inches of one drawing with a legend of one row."""
_LEGEND_ROW: Final = 0.3
_MOST_COLUMNS: Final = 4
_LETTERS_AN_INCH: Final = 11
_RC: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 12.5,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "axes.edgecolor": LIGHT["grid"],
    "axes.facecolor": LIGHT["surface"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": LIGHT["muted"],
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 1.0,
    "xtick.color": LIGHT["grid"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.color": LIGHT["grid"],
    "ytick.labelcolor": LIGHT["muted"],
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": LIGHT["surface"],
    "lines.solid_capstyle": "round",
    "lines.dash_capstyle": "butt",
    "svg.fonttype": "none",
}


def svg(draw: Draw, *, name: str, label: str, width: int, height: int) -> str:
    """A drawing as an inline SVG element, text as text, its `aria-label` as given; sizes in CSS pixels.

    `name` must be unique on the page: it begins every id. The same arguments give the same bytes.
    """
    with settings(name):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return _inline(ET.fromstring(buffer.getvalue()), name, label)


def save_pictures(draws: Sequence[tuple[str, Draw]], path_png: Path, *, columns: int) -> None:
    """Drawings with their titles and legends, side by side in rows of `columns`, as a PNG on white; the same
    drawings give the same picture. Raises `OSError`."""
    with settings("picture"):
        picture(draws, columns=columns).savefig(path_png, dpi=140, metadata={"Software": None})


def picture(draws: Sequence[tuple[str, Draw]], *, columns: int) -> Figure:
    """The same as a figure, drawn within `settings`.

    One legend serves all drawings if one of them has every name; otherwise each has its own. The picture
    grows by its legends' height: no drawing becomes smaller by its names.
    """
    rows = -(-len(draws) // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.06)
    figure = Figure(figsize=(_PICTURE_WIDTH * columns, _PICTURE_HEIGHT * rows), layout=layout)
    FigureCanvasAgg(figure)
    named: list[tuple[Axes, list[Any], list[str]]] = []
    for number, (title, draw) in enumerate(draws, 1):
        axes = figure.add_subplot(rows, columns, number)
        draw(axes)
        axes.set_title(title, color=LIGHT["ink"], weight="bold", fontsize=13, pad=12)
        named.append((axes, *axes.get_legend_handles_labels()))
    _, handles, names = max(named, key=lambda found: len(found[2]))
    if all(set(others) <= set(names) for _, _, others in named):
        more_inches = _legend(figure, handles, names, _PICTURE_WIDTH * columns, loc="outside lower center")
    else:
        more_inches = rows * max(
            _legend(axes, handles, names, _PICTURE_WIDTH, loc="upper center", bbox_to_anchor=(0.45, -0.17))
            for axes, handles, names in named
        )
    figure.set_size_inches(_PICTURE_WIDTH * columns, _PICTURE_HEIGHT * rows + more_inches)
    return figure


def _legend(
    place: Figure | Axes, handles: Sequence[Any], names: Sequence[str], room_inches: float, **where: Any
) -> float:
    """Put a legend with as many columns as there is room for; returns by how much it is higher than a row."""
    if not names:
        return 0.0
    figure = place.get_figure(root=True)
    assert figure is not None
    folded = [textwrap.fill(name, int(room_inches * _LETTERS_AN_INCH)) for name in names]
    for columns in range(min(_MOST_COLUMNS, len(names)), 0, -1):
        legend = place.legend(handles, folded, ncols=columns, frameon=False, fontsize=9.5, handlelength=1.4,
                              columnspacing=1.2, **where)  # fmt: skip
        box = legend.get_window_extent()
        if box.width <= room_inches * figure.dpi or columns == 1:
            return max(0.0, float(box.height) / figure.dpi - _LEGEND_ROW)
        legend.remove()
    raise AssertionError("a legend of one column always stands")


def accuracy_axis(axes: Axes) -> None:
    """The y axis for shares from 0 to 1."""
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}{NBSP}%"))
    axes.grid(visible=False, axis="x")


def bytes_axis(axes: Axes, values: Sequence[float], form: Callable[[float], str] = format_bytes) -> None:
    """A logarithmic x axis for bytes, or what `form` writes."""
    low, high = (min(values), max(values)) if values else (1e3, 1e6)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.5, high * 1.5)
    axes.xaxis.set_major_locator(LogLocator(subs=_steps(axes)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: form(x)))


def _steps(axes: Axes) -> tuple[float, ...]:
    """Labelled steps within each decade of a log axis: as many as there is room for."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = axes.get_position().width * figure.get_size_inches()[0] * 72 / _TICK_LABEL_WIDTH
    low, high = axes.get_xlim()
    choices = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
    return next((c for c in choices if math.log10(high / low) * len(c) <= room), choices[-1])


@contextmanager
def settings(salt: str) -> Iterator[None]:
    """Matplotlib as this module wants it, whatever the user's own settings say."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        # Typed by the names of one matplotlib's settings, which another's may lack.
        parameters: Any = matplotlib.rcParams
        parameters.update(_RC | {"svg.hashsalt": salt})
        # A device's name may be in any script; the browser has the letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph")
        yield


def _inline(root: ET.Element, name: str, label: str) -> str:
    variables = {light: f"var(--{colour})" for colour, light in LIGHT.items()}
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
