"""The figure of a round: a row for each device, its stretches of time, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes

from laconic.device_sim.report import ticks
from laconic.device_sim.scenario.results import Result, StepRow
from laconic.drawing import LIGHT, Draw

MOST_ROWS: Final = 48
"""Devices in a figure."""
STEPS: Final = {"fetch": "laconic-soft", "train": "laconic", "send": "fedavg"}

Spans = dict[str, tuple[list[tuple[str, float, float]], tuple[float, str]]]


def rounds_of(run: Result) -> list[int]:
    """The rounds whose steps are kept."""
    return sorted({s.round for s in run.steps})


def shown(run: Result, wanted: int | None = None) -> list[int]:
    """The rounds to be drawn: the first, one in the middle and the last, or the one that is nearest to
    `wanted`."""
    kept = rounds_of(run)
    if not kept:
        return []
    if wanted is not None:
        return [min(kept, key=lambda n: (abs(n - wanted), n))]
    middle = min(kept, key=lambda n: (abs(n - (kept[0] + kept[-1]) / 2), n))
    return sorted({kept[0], middle, kept[-1]})


def spans(steps: Sequence[StepRow]) -> Spans:
    """Of each device in a round: its stretches of time, and when and by which mark it ended."""
    found: Spans = {}
    since: dict[str, tuple[str, float]] = {}
    for s in steps:
        stretches, end = found.setdefault(s.device, ([], (0.0, "")))
        step, begin = since.get(s.device, ("fetch", 0.0))
        match s.what:
            case "training" | "training on" | "measuring":
                if step == "fetch":
                    stretches.append(("fetch", begin, s.seconds))
                since[s.device] = ("train", s.seconds)
            case "sending" | "skipped" | "failed":
                if step == "train":
                    stretches.append(("train", begin, s.seconds))
                since[s.device] = ("send", s.seconds)
                end = (s.seconds, {"skipped": "o", "failed": "x"}.get(s.what, ""))
            case "committed" | "rejected":
                if step == "send":
                    stretches.append(("send", begin, s.seconds))
                end = (s.seconds, "" if s.what == "committed" else "x")
        found[s.device] = (stretches, end)
    order = sorted(found, key=lambda d: (max((e for _, _, e in found[d][0]), default=found[d][1][0]), d))
    return {device: found[device] for device in order}


def of_round(run: Result, number: int) -> Spans:
    """The same of a run's round."""
    return spans([s for s in run.steps if s.round == number])


def line(rows: Spans) -> Draw:
    """What devices did in a round, a row each: fetching, training, sending; how it ended."""

    def draw(axes: Axes) -> None:
        names = list(rows)[:MOST_ROWS]
        for y, name in enumerate(names):
            for step, begin, end in rows[name][0]:
                axes.barh([y], [end - begin], 0.6, left=begin, color=LIGHT[STEPS[step]], zorder=3)
            at, mark = rows[name][1]
            if mark:
                axes.plot([at], [y], mark, color=LIGHT["ink"], markersize=6, zorder=4, clip_on=False,
                          markerfacecolor="none")  # fmt: skip
        for step, colour in STEPS.items():
            axes.barh([0], [0], 0.6, color=LIGHT[colour], label=step)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(range(len(names)), names, fontsize=10 if len(names) <= 24 else 9)
        axes.tick_params(axis="y", labelcolor=LIGHT["ink"])
        axes.grid(visible=False, axis="y")
        ticks.times(axes, "{} since the round was opened", each_s=1.0)

    return draw
