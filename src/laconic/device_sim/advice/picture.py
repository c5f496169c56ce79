"""The curves of an answer as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from laconic import drawing
from laconic.device_sim.advice.answer import Answer, told

PICTURE: Final = "advice.png"
_KINDS: Final = (("pooled", "pooled"), ("federated", "laconic"), ("alone", "alone"))


def draw(found: Answer, folder: Path) -> Path:
    """Write the picture into a folder: scores by the number of devices. Raises `OSError`."""
    draws = [("A device's own examples, later ones", lambda axes: _curves(axes, found, ""))]
    if found.newcomers:
        draws.append(("Devices that nobody learnt from", lambda axes: _curves(axes, found, "newcomer_")))
    path = folder / PICTURE
    drawing.save_pictures(draws, path, columns=len(draws))
    return path


def _curves(axes: Axes, found: Answer, prefix: str) -> None:
    sizes = [s.devices for s in found.sizes]
    for kind, colour in _KINDS:
        values = [getattr(s, prefix + kind) for s in found.sizes]
        axes.plot(sizes, values, color=drawing.LIGHT[colour], marker="o", linewidth=2, label=kind)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: told(y, found)))
    axes.set_xlabel("devices")
    axes.set_ylabel("accuracy" if found.accuracies else "loss")
