"""Writes the page of a run, or a sweep: one HTML file that needs nothing else, and its figures as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from laconic import drawing
from laconic.device_sim.report import curves, figures, losses, timeline
from laconic.device_sim.report.curves import Curve
from laconic.device_sim.report.run_page import run_page
from laconic.device_sim.report.sweep_page import groups, sweep_page
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.storing import put
from laconic.device_sim.scenario.sweep import Run
from laconic.drawing import Draw
from laconic.errors import ConfigError

PAGE: Final = "report.html"


def write(runs: Sequence[Run], folder: Path, *, number: int | None = None) -> Path:
    """Write the page of a run; of a sweep a page of each and one of all. Returns the page's path.

    `number`: the round whose line of time is drawn, or the nearest that is kept; by default the first, one in
    the middle and the last. The same runs give the same bytes. Raises `ConfigError` for a folder that cannot
    be written.
    """
    try:
        for run in runs:
            put(run.folder / PAGE, run_page(run.result, run.label, number=number).encode())
            for picture, draws in _pictures(run.result, number).items():
                drawing.save_pictures(draws, run.folder / picture, columns=min(2, len(draws)))
        if len(runs) > 1 or runs[0].label:
            put(folder / PAGE, sweep_page(runs, PAGE).encode())
            drawing.save_pictures(_qualities(groups(runs)), folder / "accuracy.png", columns=2)
    except OSError as e:
        raise ConfigError(f"cannot write to {folder} ({e.strerror})", remedy="choose another folder") from e
    return folder / PAGE


def _qualities(grouped: Sequence[Curve]) -> list[tuple[str, Draw]]:
    measure = curves.measured([run for curve in grouped for run in curve.runs]).capitalize()
    one = len(grouped) == 1
    return [(f"{measure} {c.title}", curves.quality(c, grouped, baselines=one)) for c in curves.COSTS]


def _pictures(run: Result, number: int | None) -> dict[str, list[tuple[str, Draw]]]:
    """Every figure as a picture, by the file's name."""
    found = {
        "accuracy.png": _qualities([Curve("federated", [run])]),
        "energy.png": [
            ("Where energy went", figures.stacked(run, figures.PARTS)),
            ("What work became", figures.stacked(run, figures.OUTCOMES)),
        ],
    }
    if figures.powered(run):
        found["energy.png"].append(("Batteries", figures.batteries(run)))
    if run.totals.committed:
        found["energy.png"].append(("Who took part", figures.participation(run)))
    if run.losses:
        found["losses.png"] = [
            ("Loss within rounds", losses.within_rounds(run)[0]),
            ("Loss by round", losses.by_rounds(run)),
        ]
    if run.scores:
        found["scores.png"] = [("Scores by device", curves.scores(run.scores))]
    if rounds := timeline.shown(run, number):
        found["rounds.png"] = [(f"Round {n}", timeline.line(timeline.of_round(run, n))) for n in rounds]
    return found
