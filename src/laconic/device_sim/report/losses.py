"""The figures of losses while devices train: step by step in the first rounds, and by round."""

from __future__ import annotations

import math
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from laconic.device_sim.report import ticks
from laconic.device_sim.report.curves import Point, line, losses_axis
from laconic.device_sim.report.figures import line_style
from laconic.device_sim.scenario.results import Result
from laconic.drawing import LIGHT, Draw

TOOTH_ROUNDS: Final = 6
"""Rounds whose steps are drawn."""
MOST_LINES: Final = 6
"""Devices whose steps are drawn."""


def within_rounds(run: Result) -> tuple[Draw, list[str], list[int]]:
    """Losses within the first rounds: a line for each device that trains in the fleet, one for a device that
    is alone, and the federation's at each round's end. With it, the devices and rounds that are drawn."""
    numbered = sorted({r.round for r in run.losses if r.kind != "federation"})[:TOOTH_ROUNDS]
    trained = {r.device for r in run.losses if r.kind == "device"}
    devices = [d.name for d in run.devices if d.name in trained][:MOST_LINES]
    alone = next((r.device for r in run.losses if r.kind == "alone"), None)
    steps: dict[tuple[str, str], dict[int, list[tuple[float, float]]]] = {}
    for r in run.losses:
        if r.round in numbered and r.device in (devices if r.kind == "device" else (alone,)):
            by_round = steps.setdefault((r.kind, r.device), {})
            by_round.setdefault(r.round, []).append((r.step, math.nan if r.loss is None else r.loss))
    versions = [(r.round, r.loss) for r in run.losses if r.kind == "federation" and r.loss is not None]

    def draw(axes: Axes) -> None:
        for (kind, device), by_round in sorted(steps.items(), key=lambda item: item[0][0]):
            colour = "alone" if kind == "alone" else line_style(devices.index(device))[0]
            said = False
            for number, rows in by_round.items():
                x = [number - 1 + step / len(rows) for step, _ in rows]
                axes.plot(x, [loss for _, loss in rows], color=LIGHT[colour],
                          linewidth=2.0 if kind == "alone" else 1.4,
                          linestyle=(0, (3, 1.5)) if kind == "alone" else "-",
                          label=None if said else f"{device} alone" if kind == "alone" else device,
                          marker="o" if len(rows) == 1 else None, markersize=4)  # fmt: skip
                said = True
        begin = numbered[0] - 1 if numbered else 0
        points = [(n, loss) for n, loss in versions if numbered and begin <= n <= numbered[-1]]
        if points:
            axes.plot(*zip(*points, strict=True), color=LIGHT["ink"], linewidth=2.4, zorder=4,
                      marker="o", markersize=5, label="the federation, all examples")  # fmt: skip
        losses_axis(axes)
        axes.grid(visible=True, axis="x")
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Round: its steps from left to right")
        axes.set_ylabel("Loss")

    return draw, devices, numbered


def by_rounds(run: Result) -> Draw:
    """Mean loss of training by round: devices in the fleet, devices alone, and the federation."""

    def draw(axes: Axes) -> None:
        for kind, colour, label in (
            ("alone", "alone", "alone"),
            ("device", "laconic", "devices, while they train"),
            ("federation", "ink", "the federation, all examples"),
        ):
            by_round: dict[int, dict[str, list[float]]] = {}
            for r in run.losses:
                if r.kind == kind and r.loss is not None:
                    by_round.setdefault(r.round, {}).setdefault(r.device, []).append(r.loss)
            points = []
            for number, found in sorted(by_round.items()):
                means = [sum(v) / len(v) for v in found.values()]
                points.append(Point(number, sum(means) / len(means), min(means), max(means)))
            line(axes, points, colour, "-", label)
        losses_axis(axes)
        axes.set_xlim(left=0)
        axes.margins(x=0)
        ticks.numbers(axes, whole=True)
        axes.set_xlabel("Round")
        axes.set_ylabel("Loss")

    return draw
