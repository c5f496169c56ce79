"""The figures of learning: how good the model is by what it cost, beside the baselines; losses; scores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from laconic.device_sim.report import ticks
from laconic.device_sim.report.figures import VIRTUAL, line_style
from laconic.device_sim.scenario.results import Result, RoundRow, ScoreRow
from laconic.device_sim.signals import HOUR_S
from laconic.drawing import LIGHT, Draw, accuracy_axis, bytes_axis
from laconic.quantities import format_bytes, format_joules, format_percent

_Row = TypeVar("_Row")
KINDS: Final = {"alone": "alone", "pooled": "pooled"}
"""Colours of the baselines."""
SCORES: Final = {
    "federated": "laconic",
    "shared": "laconic-soft",
    "alone": "alone",
    "pooled": "pooled",
}
NO_VERSION: Final = "No version was made."
_FAR: Final = 20.0
_FARTHEST: Final = 1e4


@dataclass(frozen=True)
class Cost:
    """What a model's quality is drawn against."""

    title: str
    of: Callable[[RoundRow], float]
    label: str
    units: Sequence[tuple[str, float]] = ticks.NUMBERS
    form: Callable[[float], str] = str
    """Of a logarithmic axis's values."""
    known: bool = False
    """Whether training without communication has it, too: its rounds are when the federation's are."""
    whole: bool = False
    """Whether there is nothing between whole numbers."""


_ROUND: Final = Cost("by round", lambda r: r.round, "Round", known=True, whole=True)
_TIME: Final = Cost("by time", lambda r: r.hours, "", known=True)
COSTS: Final = (
    _ROUND,
    _TIME,
    Cost(
        "by bytes",
        lambda r: r.bytes_up + r.bytes_down,
        "All devices, up plus down",
        ticks.BYTES,
        format_bytes,
        whole=True,
    ),
    Cost(
        "by work", lambda r: r.work_joules, "Joules of computing and transfers", ticks.JOULES, format_joules
    ),
)


@dataclass(frozen=True)
class Curve:
    """One line: of a run, or of several that differ by seed."""

    label: str
    runs: Sequence[Result]


class Point(NamedTuple):
    """Of a line: where it is, on the mean, from the least to the most."""

    x: float
    mean: float
    least: float
    most: float


def measured(runs: Sequence[Result]) -> str:
    """What models are measured by: accuracy, or loss where no version has an accuracy."""
    known = any(r.accuracy is not None for run in runs for r in run.rounds)
    return "accuracy" if known or not any(run.rounds for run in runs) else "loss"


def made(runs: Sequence[Result]) -> bool:
    """Whether any version was made after the first, which nobody has trained."""
    return any(r.version for run in runs for r in run.rounds)


def personal(run: Result) -> bool:
    """Whether devices keep weights to themselves: held-out examples are then scored with untrained ones."""
    return bool(run.settings["model"].get("local")) or any(r.shared_loss is not None for r in run.scores)


def own_mean(run: Result, model: str = "federated") -> float | None:
    """The mean over the devices of what a model is worth on their own held-out examples."""
    values = of_model(run.scores, model, score_measure(run.scores))
    return sum(values) / len(values) if values else None


def told(value: float | None, measure: str) -> str:
    """An accuracy or a loss in words."""
    if value is None:
        return "–"
    return format_percent(value) if measure == "accuracy" else f"{value:.4g}"


def last(run: Result, measure: str, kind: str | None = None) -> float | None:
    """The last accuracy or loss of a run, or of one of its baselines."""
    if kind is None:
        value = run.totals.accuracy if measure == "accuracy" else run.totals.loss
    else:
        rows = [r for r in run.baselines if r.kind == kind]
        value = getattr(rows[-1], measure) if rows else None
    return value


def best(run: Result, measure: str) -> float | None:
    """The best accuracy or loss of a version."""
    if measure == "accuracy":
        return run.totals.best_accuracy
    return min((r.loss for r in run.rounds if r.loss is not None and r.version is not None), default=None)


def kinds(runs: Sequence[Result]) -> list[str]:
    """The baselines that runs have."""
    return [k for k in KINDS if any(r.kind == k for run in runs for r in run.baselines)]


def quality(cost: Cost, curves: Sequence[Curve], *, baselines: bool = True) -> Draw:
    """Accuracy or loss on held-out data against a cost, with baselines where they have that cost.

    Of several runs their mean, in the band from the least to the most. Words where no version was made.
    """
    runs = [run for curve in curves for run in curve.runs]
    measure = measured(runs)

    def draw(axes: Axes) -> None:
        if not made(runs):
            axes.set_axis_off()
            axes.text(0.5, 0.5, NO_VERSION, ha="center", transform=axes.transAxes, color=LIGHT["muted"])
            return
        if baselines and cost.known:
            for kind in kinds(runs):
                line(axes, list(_baseline(cost, runs, kind, measure)), KINDS[kind], "-", kind)
        lines = [list(_points(cost, curve.runs, measure)) for curve in curves]
        if far := _far(cost, lines):
            lines = [[point for point in points if point.x >= far] for points in lines]
        for i, (curve, points) in enumerate(zip(curves, lines, strict=True)):
            colour, dashes = line_style(i)
            line(axes, points, colour, dashes, curve.label)
        if measure == "accuracy":
            accuracy_axis(axes)
        else:
            losses_axis(axes)
        if far:
            bytes_axis(axes, [point.x for points in lines for point in points], cost.form)
            axes.set_xlabel(cost.label)
            return
        axes.set_xlim(left=0)
        axes.margins(x=0)
        if cost is _TIME:
            ticks.times(axes, VIRTUAL, each_s=HOUR_S)
        else:
            ticks.numbers(axes, cost.units, whole=cost.whole)
            axes.set_xlabel(cost.label)

    return draw


def _far(cost: Cost, lines: Sequence[Sequence[Point]]) -> float:
    """Where a logarithmic axis of what was spent begins; 0 where the ends are not far apart."""
    ends = [points[-1].x for points in lines if points and points[-1].x > 0]
    if cost.known or not ends or max(ends) < _FAR * min(ends):
        return 0.0
    spent = min(point.x for points in lines for point in points if point.x > 0)
    return max(spent, min(ends) / _FAR)


def _points(cost: Cost, runs: Sequence[Result], measure: str) -> Iterator[Point]:
    """Of the rounds in which any run has made a version: a run without one goes on with its last."""
    by_run = [{r.round: r for r in run.rounds if getattr(r, measure) is not None} for run in runs]
    for number, rows in _carried(by_run):
        values = [getattr(r, measure) for r in rows]
        yield Point(_mean_cost(cost, number, rows), sum(values) / len(values), min(values), max(values))


def _baseline(cost: Cost, runs: Sequence[Result], kind: str, measure: str) -> Iterator[Point]:
    """The same of a baseline, over the runs that have it; its rounds cost what the federation's did."""
    by_run, costs = [], []
    for run in runs:
        there = [r for r in run.baselines if r.kind == kind and getattr(r, measure) is not None]
        if there:
            by_run.append({r.round: r for r in there})
            costs.append({r.round: r for r in run.rounds})
    paid = dict(_carried(costs, also={number for found in by_run for number in found}))
    for number, rows in _carried(by_run):
        if number in paid:
            yield Point(
                _mean_cost(cost, number, paid[number]),
                sum(getattr(r, measure) for r in rows) / len(rows),
                min(getattr(r, f"{measure}_least") for r in rows),
                max(getattr(r, f"{measure}_most") for r in rows),
            )


def _carried(
    by_run: Sequence[dict[int, _Row]], *, also: Collection[int] = ()
) -> Iterator[tuple[int, list[_Row]]]:
    """By round each run's row, or its last one before; from the round on in which all have one."""
    now: dict[int, _Row] = {}
    for number in sorted({*also, *(number for found in by_run for number in found)}):
        now |= {i: found[number] for i, found in enumerate(by_run) if number in found}
        if by_run and len(now) == len(by_run):
            yield number, list(now.values())


def _mean_cost(cost: Cost, number: int, rows: Sequence[RoundRow]) -> float:
    return float(number) if cost is _ROUND else sum(map(cost.of, rows)) / len(rows)


def line(axes: Axes, points: Sequence[Point], colour: str, dashes: object, label: str) -> None:
    """Draw a line in its band; nothing of no points."""
    if not points:
        return
    x, mean, least, most = zip(*points, strict=True)
    if least != most:
        axes.fill_between(x, least, most, color=LIGHT[colour], alpha=0.15, linewidth=0)
    axes.plot(x, mean, linestyle=dashes, color=LIGHT[colour], linewidth=2.2, label=label,
              clip_on=False, zorder=3, marker="o" if len(points) < 3 else None)  # fmt: skip


def losses_axis(axes: Axes) -> None:
    """The y axis for losses that are drawn: by powers where they go far apart.

    What leaves it is cut: of a model that has diverged the way up, rather than all others below.
    """
    least, most = axes.dataLim.minposy, axes.dataLim.y1
    axes.grid(visible=False, axis="x")
    if axes.has_data() and 0 < least < most / _FAR:
        began = max(float(np.asarray(line.get_ydata(), float)[0]) for line in axes.lines)
        top = min(most, _FAR * began) if began > 0 else most
        bottom = max(least, top / _FARTHEST)
        axes.set_yscale("log")
        axes.set_ylim(bottom / 1.15, top * 1.15)
        if least < bottom or top < most:
            for line in axes.lines:
                line.set_clip_on(True)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    axes.set_ylim(bottom=0)
    axes.margins(y=0.05)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(ticks.Unit(ticks.NUMBERS))


# --- each device's own


def of_model(rows: Sequence[ScoreRow], model: str, measure: str) -> list[float]:
    """The scores of those devices for which there is such a model."""
    found = [getattr(r, f"{model}_{measure}") for r in rows]
    return [v for v in found if v is not None]


def score_measure(rows: Sequence[ScoreRow]) -> str:
    """What scores are: accuracy, or loss where there is none."""
    return "accuracy" if any(r.federated_accuracy is not None for r in rows) else "loss"


def scores(rows: Sequence[ScoreRow]) -> Draw:
    """A dot for each device on its own held-out examples, by model; a stroke at the mean."""
    measure = score_measure(rows)

    def draw(axes: Axes) -> None:
        models = [m for m in SCORES if of_model(rows, m, measure)]
        for y, model in enumerate(models):
            values = of_model(rows, model, measure)
            # Dots that would hide one another are spread by a sequence that fills its interval evenly.
            places = [y - 0.28 + 0.56 * (0.618034 * i % 1) for i in range(len(values))]
            size = 7 if len(values) < 50 else 4
            axes.plot(values, places, "o", color=LIGHT[SCORES[model]], markersize=size, alpha=0.7,
                      markeredgewidth=0, zorder=3, clip_on=False)  # fmt: skip
            mean = sum(values) / len(values)
            axes.plot([mean, mean], [y - 0.36, y + 0.36], color=LIGHT["ink"], linewidth=2.4, zorder=4)
        axes.set_ylim(len(models) - 0.4, -0.6)
        axes.set_yticks(range(len(models)), models)
        axes.tick_params(axis="y", labelcolor=LIGHT["ink"])
        axes.grid(visible=False, axis="y")
        if measure == "accuracy":
            axes.set_xlim(0, 1)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_percent(x, 0)))
        else:
            axes.set_xlim(left=0)
        axes.set_xlabel(f"{measure.capitalize()} on a device's own held-out examples")

    return draw
