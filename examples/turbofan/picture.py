"""The picture of a study: what each strategy earns, and how that depends on what a failure costs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from comparing import BOUNDS, STRATEGIES
from matplotlib.axes import Axes
from study import Study

from laconic.drawing import LIGHT, save_pictures

_COLOURS: Final = {
    "run to failure": LIGHT["rose"],
    "preventive": LIGHT["gold"],
    "predictive, alone": LIGHT["alone"],
    "predictive, federated": LIGHT["laconic"],
    "preventive, all histories": LIGHT["gold"],
    "predictive, pooled": LIGHT["pooled"],
    "all-knowing": LIGHT["muted"],
}
_LEAST: Final = -100.0
"""Thousands of dollars: whoever loses more leaves the picture."""


def draw(study: Study, path_png: Path) -> None:
    """Write the picture. Raises `OSError`."""
    save_pictures(
        [
            ("Profit for 1,000 cycles, by operator", lambda axes: _profits(axes, study)),
            ("... by what a failure costs", lambda axes: _ratios(axes, study)),
        ],
        path_png,
        columns=2,
    )


def _profits(axes: Axes, study: Study) -> None:
    names = [*STRATEGIES, *BOUNDS]
    for row, name in enumerate(reversed(names)):
        found = study.main[name]
        mean = sum(found.profit) / len(found.profit) / 1000
        axes.barh(row, mean, color=_COLOURS[name], alpha=0.45 if name in BOUNDS else 1.0, height=0.6)
        axes.plot([v / 1000 for v in found.worst], [row] * len(found.worst), "o", color=LIGHT["ink"], ms=4)
    axes.plot([], [], "o", color=LIGHT["ink"], ms=4, label="the operator that earns least, by seed")
    axes.set_yticks(range(len(names)), list(reversed(names)), fontsize=10)
    axes.set_xlabel("thousand dollars")
    axes.grid(visible=False, axis="y")


def _ratios(axes: Axes, study: Study) -> None:
    for name in STRATEGIES:
        values = [
            sum(found[name].profit) / len(found[name].profit) / 1000 for found in study.by_ratio.values()
        ]
        axes.plot(list(study.by_ratio), values, color=_COLOURS[name], marker="o", ms=4, label=name)
    axes.set_xscale("log")
    axes.set_xticks(list(study.by_ratio), [f"{ratio:g}" for ratio in study.by_ratio])
    axes.set_ylim(_LEAST, None)
    axes.set_xlabel("failure's price over a service's")
