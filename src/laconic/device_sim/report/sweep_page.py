"""A sweep's page: what its runs came to; where they differ by seed alone, the mean and the range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from laconic.device_sim.report import cards, choosing, curves, labels
from laconic.device_sim.report.curves import Curve
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.sweep import Run
from laconic.pages import escape, page
from laconic.quantities import NBSP, format_bytes, format_count, format_hours, format_joules, plural

Column = tuple[str, Callable[[Result], float | None], Callable[[float], str]]
_RANGE: Final = "–"


def sweep_page(runs: Sequence[Run], link: str) -> str:
    """The page as HTML text, with links to those of its runs: `link` in each one's folder."""
    name = str(runs[0].result.settings["name"])
    results = [r.result for r in runs]
    grouped = groups(runs)
    by_seed = len(grouped) < len(runs)
    names, same = labels.short([r.label for r in runs])
    columns = list(_columns(results))
    head = [title for title, _, _ in columns]
    rows = [
        (
            ("" if by_seed else cards.line_key(i) + " ")
            + f'<a href="{escape(r.label)}/{link}" style="color:inherit">{_name(names[i])}</a>',
            [_told([of(r.result)], form) for _, of, form in columns],
        )
        for i, r in enumerate(runs)
    ]
    lead = f"{plural(len(runs), 'run')} of one scenario{''.join(f', {part}' for part in same)}."
    sections = [
        '<p class="brand"><b>Laconic</b> · a sweep in the simulator</p>',
        f'<h1>{escape(name)}</h1><p class="lead">{escape(lead)} The colours of the lines are those of'
        " the table.</p>",
        _which(grouped, by_seed=by_seed),
    ]
    if by_seed:
        means = [
            (
                f"{cards.line_key(i)} {_name(curve.label or 'all seeds')}",
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
    """Runs that differ by seed alone, together; by the rest of their label, in short."""
    found: dict[str, list[Result]] = {}
    for r in runs:
        rest = ",".join(part for part in r.label.split(",") if not part.startswith("seed="))
        found.setdefault(rest, []).append(r.result)
    names, _ = labels.short(list(found))
    return [Curve(name, results) for name, results in zip(names, found.values(), strict=True)]


def _which(grouped: Sequence[Curve], *, by_seed: bool) -> str:
    """Which settings are as good as the best, and what each costs a device; nothing for a single one."""
    found = choosing.choices(grouped)
    if found is None:
        return ""
    measure, goal = found.measure, curves.told(found.goal, found.measure)
    good = [row for row in found.rows if row.as_good]
    slack = f"{100 * found.slack:.1f} points" if measure == "accuracy" else f"{found.slack:.2g}"
    says = [
        f"{len(good)} of {len(found.rows)} settings are as good as the best at the end"
        f" (within {slack}{', as much as its seeds differ' if found.spread else ''})."
        if len(good) > 1
        else f"“{good[0].label}” is the best at the end, by more than {slack}."
    ]
    by_label: dict[str, list[str]] = {}
    for words, of in _THRIFTS:
        if (row := found.least(of)) is not None:
            by_label.setdefault(row.label, []).append(words)
    if len(good) > 1 and by_label:
        thrifts = "; ".join(f"{_listed(words)}: “{label}”" for label, words in by_label.items())
        says.append(f"Of these, to come to {goal}, {thrifts}.")
    if not by_seed:
        says.append("One seed: luck is not ruled out (--sweep seed=0,1,2).")
    rows = []
    for i, row in enumerate(found.rows):
        cells = ["–"] * 4
        if (price := row.price) is not None:
            cells = [
                f"{price.rounds:.3g}",
                format_hours(price.hours),
                format_bytes(price.bytes_each),
                format_joules(price.work_j_each),
            ]
        mark = "\nbest" if row is found.best else "\nas good" if row.as_good else ""
        told = curves.told(row.quality, measure) + mark
        rows.append((f"{cards.line_key(i)} {_name(row.label)}", [told, *cells]))
    head = ("", f"{measure.capitalize()} at the end", f"To {goal}: rounds", "time", "bytes", "work")
    return cards.table("Which settings", " ".join(says) + " Bytes and work of one device, mean.", head, rows)


_THRIFTS: Final[tuple[tuple[str, Callable[[choosing.Price], float]], ...]] = (
    ("the fewest bytes", lambda p: p.bytes_each),
    ("the least work", lambda p: p.work_j_each),
    ("the least time", lambda p: p.hours),
)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _name(label: str) -> str:
    """A label that may go on in a second line, from one word to the next."""
    return f'<span class="name">{escape(label)}</span>'


def figures_of(grouped: Sequence[Curve], *, by_seed: bool) -> str:
    """How good models are by what they cost, a line for each group; baselines where there is one group."""
    results = [run for curve in grouped for run in curve.runs]
    measure = curves.measured(results).capitalize()
    if not curves.made(results):
        return cards.card(measure, curves.NO_VERSION, [], "", alone=True)
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
    return cards.pairs(*drawn)


def _columns(runs: Sequence[Result]) -> Iterator[Column]:
    measure = curves.measured(runs)

    def told(value: float) -> str:
        return curves.told(value, measure)

    yield "Rounds", lambda r: r.totals.rounds, lambda x: format_count(round(x))
    yield "Time", lambda r: r.totals.hours, format_hours
    of_newcomers = " of a newcomer" if any(map(curves.personal, runs)) else ""
    yield measure.capitalize() + of_newcomers, lambda r: curves.last(r, measure), told
    for kind in curves.kinds(runs):
        yield kind.capitalize(), partial(curves.last, measure=measure, kind=kind), told
    yield from _own(runs)
    yield "Up", lambda r: r.totals.bytes_up, format_bytes
    yield "Down", lambda r: r.totals.bytes_down, format_bytes
    yield "Work", lambda r: r.totals.work_j, format_joules
    yield "Wasted", lambda r: r.totals.wasted_j, format_joules
    yield "Jain", lambda r: r.totals.jain if r.totals.committed else None, lambda x: f"{x:.2f}"


def _own(runs: Sequence[Result]) -> Iterator[Column]:
    """Means over the devices of what models are worth on their own held-out examples."""
    rows = [row for run in runs for row in run.scores]
    measure = curves.score_measure(rows)
    for model in curves.SCORES:
        if curves.of_model(rows, model, measure):
            mean = partial(curves.own_mean, model=model)
            yield f"Own: {model}", mean, partial(curves.told, measure=measure)


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
