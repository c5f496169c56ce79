"""The page of one run as HTML."""

from __future__ import annotations

from typing import Final

from laconic.device_sim.report import (
    cards,
    costs,
    curves,
    figures,
    given,
    labels,
    learning,
    remarks,
    timeline,
)
from laconic.device_sim.scenario.results import Result
from laconic.pages import element, escape, page
from laconic.quantities import (
    format_bytes,
    format_count,
    format_hours,
    format_joules,
    format_percent,
    plural,
)


def run_page(run: Result, label: str = "", *, number: int | None = None) -> str:
    """The page of one run as HTML text.

    `number`: the round whose line of time is drawn, or the nearest that is kept; None: the first, one in the
    middle and the last.
    """
    name = str(run.settings["name"])
    measure = curves.measured([run])
    sections = [
        _head(run, name, label),
        learning.qualities(run),
        costs.table(run),
        learning.scores(run),
        learning.losses(run),
        _fleet(run),
        *(_round(run, n) for n in timeline.shown(run, number)),
        _classes_table(run),
        given.table(run),
        f"<footer>laconic {escape(run.version)}, run {escape(run.digest)}. Joules are modelled, not measured:"
        " docs/simulator.md has each formula, docs/profiles.md each constant.</footer>",
    ]
    return page(f"{name}: {curves.told(curves.last(run, measure), measure)}", sections)


# --- sections ----------------------------------------------------------------------------------------------


def _head(run: Result, name: str, label: str) -> str:
    t = run.totals
    measure = curves.measured([run])
    # As the run had it: the scenario's own end goes before its coordinator's.
    goal = run.settings["end"]["accuracy"] or run.settings["coordinator"]["schedule"]["until_accuracy"]
    reached = goal is not None and t.accuracy is not None and t.accuracy >= goal
    ended = "its hours" if t.ended != "finished" else "its goal" if reached else "its rounds"
    shown, _ = labels.short([label])
    tiles = [
        _quality_tile(run, measure),
        (
            "Bytes, all devices",
            format_bytes(t.bytes_up + t.bytes_down),
            f"{format_bytes(t.bytes_up)} up",
            f"{format_bytes(t.bytes_down)} down",
        ),
        (
            "Work: computing and transfers",
            format_joules(t.work_j),
            f"wasted {format_joules(t.wasted_j)}",
            f"of {format_joules(t.joules)} in all, idle and users too",
        ),
        (
            "Jain's index of updates",
            f"{t.jain:.2f}" if t.committed else "–",
            f"{plural(t.committed, 'update')}",
            f"none from {t.never} of {plural(t.devices, 'device')}",
        ),
    ]
    return (
        '<p class="brand"><b>Laconic</b> · a scenario in the simulator</p>'
        f"<h1>{escape(name)}</h1>"
        f'<p class="lead">{plural(t.devices, "device")}, {plural(t.rounds, "round")} in'
        f" {format_hours(t.hours)} of virtual time; a shared model of {plural(t.parameters, 'parameter')}."
        f" Ended by {ended}."
        f" {escape(shown[0])}</p>"
        '<dl class="tiles">'
        + "".join(
            f"<div>{element('dt', x[0])}{''.join(element('dd', w) for w in x[1:])}</div>" for x in tiles
        )
        + "</dl>"
    )


def _quality_tile(run: Result, measure: str) -> tuple[str, ...]:
    """The headline. Where devices keep weights to themselves it is of one that has trained none yet."""
    own = curves.own_mean(run)
    mean = f"mean of {plural(len(run.scores), 'device')} on their own examples:"
    tile = [
        f"{measure.capitalize()}, held-out examples",
        curves.told(curves.last(run, measure), measure),
        plural(run.totals.held_out, "example"),
        f"best {curves.told(curves.best(run, measure), measure)}"
        if curves.made([run])
        else "of the model as it began",
    ]
    if curves.personal(run):
        tile[0] = f"A newcomer's {measure}, held-out examples"
        tile.insert(2, "its own layers are untrained")
    if own is not None:
        tile.insert(2, f"{mean} {curves.told(own, curves.score_measure(run.scores))}")
    return tuple(tile)


def _fleet(run: Result) -> str:
    """What devices spent, two figures a row; what has no figure takes no room of one."""
    costs_of = [_energy(run), _outcomes(run)]
    took_part = [_participation(run)] if run.totals.committed else []
    if figures.powered(run):
        halves = [_batteries(run), _bytes(run), *costs_of, *took_part]
    else:
        halves = [_bytes(run), *took_part, *costs_of]
    alone = len(halves) % 2 == 0
    rows = cards.pairs(*halves, "" if alone else _origins(run))
    return rows + (_origins(run, alone=True) if alone else "") + ("" if took_part else _participation(run))


def _batteries(run: Result) -> str:
    order = list(figures.classes(run))
    keys = [(figures.COLOURS[order.index(k) % len(figures.COLOURS)], k, "") for k in figures.powered(run)]
    says = "Mean charge of a class, within the band from the least to the most."
    if not curves.made([run]):
        says += " Charges are noted when versions are made: here at the beginning and the end alone."
    return cards.card(
        "Batteries", says, keys, cards.svg(figures.batteries(run), "batteries", "Charge by class and hour")
    )


def _bytes(run: Result) -> str:
    keys = [("laconic", "up", ""), ("laconic-soft", "down", "")]
    return cards.card(
        "Bytes by class", "", keys, cards.svg(figures.bytes_by_class(run), "bytes", "Bytes by class")
    )


def _energy(run: Result) -> str:
    keys = [key for key, joules in _joule_keys(run, figures.PARTS) if joules]
    says = f"All that a device took, whether the fleet was the reason or not. {_EACH}"
    if not figures.powered(run):
        says += " Every device is on mains."
    return cards.card(
        "Where energy went",
        says,
        keys,
        cards.svg(figures.stacked(run, figures.PARTS), "energy", "Joules by class"),
    )


def _outcomes(run: Result) -> str:
    keys = [key for key, _ in _joule_keys(run, figures.OUTCOMES)]
    says = (
        "Computing and transfers. Wasted: no update was committed. Silent: the gate was shut. Upkeep: models,"
        f" offers, pings. {_EACH}"
    )
    for remark in remarks.failures(run.totals):
        says += f" {remark[:1].upper()}{remark[1:]}."
    return cards.card(
        "What work became",
        says,
        keys,
        cards.svg(figures.stacked(run, figures.OUTCOMES), "outcomes", "Work by class"),
    )


_EACH: Final = "Joules of one device: bars are means of a class, figures beside the colours of all devices."


def _joule_keys(run: Result, parts: dict[str, tuple[str, str]]) -> list[tuple[tuple[str, str, str], float]]:
    """Keys with the mean joules of a device, and these."""
    n = max(1, len(run.devices))
    means = {name: sum(getattr(d, name) for d in run.devices) / n for name in parts}
    return [
        ((colour, words, format_joules(means[name])), means[name]) for name, (words, colour) in parts.items()
    ]


def _participation(run: Result) -> str:
    keys = _class_keys(run)
    skipped = ", ".join(f"{why} {n}" for why, n in run.totals.skipped.items()) or "none"
    if not run.totals.committed:
        says = f"No update was committed. Rounds that devices skipped: {skipped}."
        return cards.card("Who took part", says, [], "", alone=True)
    says = f"A bar for each device. Rounds that devices skipped: {skipped}."
    return cards.card(
        "Who took part", says, keys, cards.svg(figures.participation(run), "part", "Updates by device")
    )


def _origins(run: Result, *, alone: bool = False) -> str:
    shares = run.totals.joules_by_origin
    keys = [(c, n, format_percent(shares.get(n, 0.0))) for n, c in figures.ORIGINS.items()]
    says = "Shares of all joules by the worst known figure behind them. What the scenario sets is assumed."
    return cards.card(
        "What the joules rest on",
        says,
        keys,
        (cards.wide_svg if alone else cards.svg)(
            figures.origins(run), "origins", "Joules by origin", height=110
        ),
        alone=alone,
    )


def _round(run: Result, number: int) -> str:
    spans = timeline.of_round(run, number)
    rows = min(len(spans), timeline.MOST_ROWS)
    many = f" The first {rows} of {len(spans)} devices that ended." if len(spans) > rows else ""
    says = f"A ring: the device stayed silent; a cross: it failed or was refused.{many}"
    keys = [(c, w, "") for w, c in timeline.STEPS.items()]
    height = 90 + rows * (22 if rows <= 24 else 17)
    drawn = cards.wide_svg(
        timeline.line(spans), f"round{number}", f"Line of time of round {number}", height=height
    )
    return cards.card(f"Round {number}", says, keys, drawn, alone=True)


def _classes_table(run: Result) -> str:
    head = (
        "Class",
        "Devices",
        "Updates",
        "Up",
        "Down",
        "Energy",
        "Work",
        "Wasted",
        "Charge at the end",
        "Dead",
    )
    rows = []
    for kind, ds in figures.classes(run).items():
        charges = [d.battery_end_j / d.battery_j for d in ds if d.battery_j]
        cells = (
            format_count(len(ds)),
            format_count(sum(d.committed for d in ds)),
            format_bytes(sum(d.bytes_up for d in ds)),
            format_bytes(sum(d.bytes_down for d in ds)),
            format_joules(sum(getattr(d, p) for d in ds for p in figures.PARTS)),
            format_joules(sum(getattr(d, p) for d in ds for p in figures.OUTCOMES)),
            format_joules(sum(d.wasted_j for d in ds)),
            format_percent(sum(charges) / len(charges), 0) if charges else "mains",
            format_count(sum(not d.on for d in ds)),
        )
        rows.append((escape(kind), cells))
    return cards.table(
        "Classes",
        "Sums over the devices of a class; the charge is their mean at the end. Dead: off at the end, for the"
        " battery is empty.",
        head,
        rows,
    )


def _class_keys(run: Result) -> list[tuple[str, str, str]]:
    return [
        (figures.line_style(i)[0], kind, format_count(sum(d.committed for d in ds)))
        for i, (kind, ds) in enumerate(figures.classes(run).items())
    ]
