"""A sweep's page: what its runs came to; where they differ by seed alone, the mean and the range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from laconic.device_sim.report import cards, curves
from laconic.device_sim.report.curves import Curve
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.sweep import Run
from laconic.pages import escape, page
from laconic.quantities import NBSP, format_bytes, format_count, format_joules, plural

Column = tuple[str, Callable[[Result], float | None], Callable[[float], str]]
_RANGE: Final = "–"


def sweep_page(runs: Sequence[Run], link: str) -> str:
    """The page as HTML text, with links to those of its runs: `link` in each one's folder."""
    name = str(runs[0].result.settings["name"])
    results = [r.result for r in runs]
    grouped = groups(runs)
    by_seed = len(grouped) < len(runs)
    columns = list(_columns(results))
    head = [title for title, _, _ in columns]
    rows = [
        (
            ("" if by_seed else cards.line_key(i) + " ")
            + f'<a href="{escape(r.label)}/{link}" style="color:inherit">{escape(r.label)}</a>',
            [_told([of(r.result)], form) for _, of, form in columns],
        )
        for i, r in enumerate(runs)
    ]
    lead = f"{plural(len(runs), 'run')} of one scenario."
    sections = [
        '<p class="brand"><b>Laconic</b> · a sweep in the simulator</p>',
        f'<h1>{escape(name)}</h1><p class="lead">{lead} The colours of the lines are those of the table.</p>',
    ]
    if by_seed:
        means = [
            (
                f"{cards.line_key(i)} {escape(curve.label or 'all seeds')}",
                [str(len(curve.runs)), *(_told(list(map(of, curve.runs)), form) for _, of, form in columns)],
            )
            for i, curve in enumerate(grouped)
        ]
        says = "Mean over the seeds; below it the least and the most."
        sections.append(cards.table("Over seeds", says, ("", "Seeds", *head), means))
    else:
        sections.append(cards.table("Runs", "", ("Run", *head), rows))
    sections.append(figures_of(grouped, by_seed=by_seed))
    if by_seed:
        sections.append(cards.table("Runs", "Each has a page of its own.", ("Run", *head), rows))
    return page(f"{name}: a sweep", sections)


def groups(runs: Sequence[Run]) -> list[Curve]:
    """Runs that differ by seed alone, together; by the rest of their label."""
    found: dict[str, list[Result]] = {}
    for r in runs:
        rest = ",".join(part for part in r.label.split(",") if not part.startswith("seed="))
        found.setdefault(rest, []).append(r.result)
    return [Curve(label, results) for label, results in found.items()]


def figures_of(grouped: Sequence[Curve], *, by_seed: bool) -> str:
    """How good models are by what they cost, a line for each group; baselines where there is one group."""
    results = [run for curve in grouped for run in curve.runs]
    measure = curves.measured(results).capitalize()
    one = len(grouped) == 1
    keys = [(curves.KINDS[k], k, "") for k in curves.kinds(results)] if one else []
    says = "Mean over the seeds, in the band from the least to the most." if by_seed else ""
    drawn = [
        cards.card(
            f"{measure} {cost.title}",
            says,
            [("laconic", "federated", ""), *keys] if keys and cost.known else [],
            cards.svg(curves.quality(cost, grouped, baselines=one), f"quality{i}", f"{measure} {cost.title}"),
        )
        for i, cost in enumerate(curves.COSTS)
    ]
    return cards.pair(*drawn[:2]) + cards.pair(*drawn[2:])


def _columns(runs: Sequence[Result]) -> Iterator[Column]:
    measure = curves.measured(runs)

    def told(value: float) -> str:
        return curves.told(value, measure)

    yield "Rounds", lambda r: r.totals.rounds, lambda x: format_count(round(x))
    yield "Hours", lambda r: r.totals.hours, lambda x: f"{x:.3g}"
    yield measure.capitalize(), lambda r: curves.last(r, measure), told
    for kind in curves.kinds(runs):
        yield kind.capitalize(), partial(curves.last, measure=measure, kind=kind), told
    yield from _own(runs)
    yield "Up", lambda r: r.totals.bytes_up, format_bytes
    yield "Down", lambda r: r.totals.bytes_down, format_bytes
    yield "Work", lambda r: r.totals.work_j, format_joules
    yield "Wasted", lambda r: r.totals.wasted_j, format_joules
    yield "Jain", lambda r: r.totals.jain, lambda x: f"{x:.2f}"


def _own(runs: Sequence[Result]) -> Iterator[Column]:
    """Means over the devices of what models are worth on their own held-out examples."""
    rows = [row for run in runs for row in run.scores]
    measure = curves.score_measure(rows)
    for model in curves.SCORES:
        if curves.of_model(rows, model, measure):
            mean = partial(_mean, model=model, measure=measure)
            yield f"Own: {model}", mean, partial(curves.told, measure=measure)


def _mean(run: Result, *, model: str, measure: str) -> float | None:
    values = curves.of_model(run.scores, model, measure)
    return sum(values) / len(values) if values else None


def _told(values: Sequence[float | None], form: Callable[[float], str]) -> str:
    """A value, or the mean of several and their range; what all runs do not have is not told."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return _RANGE
    mean, least, most = form(sum(known) / len(known)), form(min(known)), form(max(known))
    if least == most:
        return mean
    unit = most.partition(NBSP)[2]
    return f"{mean}\n{least.removesuffix(NBSP + unit)}{_RANGE}{most}"
