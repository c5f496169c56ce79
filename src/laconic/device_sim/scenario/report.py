"""A run's page, or a sweep's: one HTML file that needs nothing else, and its figures as PNG beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from laconic import drawing
from laconic.coordinator.configuration import CampaignSection
from laconic.device_sim.scenario import figures
from laconic.device_sim.scenario.comparing import flat
from laconic.device_sim.scenario.figures import Draw
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.storing import put
from laconic.device_sim.scenario.sweep import Run
from laconic.errors import ConfigError
from laconic.pages import element, escape, page
from laconic.quantities import (
    format_bytes,
    format_count,
    format_joules,
    format_percent,
    plural,
)

PAGE: Final = "report.html"
_WIDE, _HIGH = 520, 320


def write(runs: Sequence[Run], folder: Path) -> Path:
    """Write the page of a run; of a sweep a page of each and one of all. Returns the page's path.

    The same runs give the same bytes. Raises `ConfigError` for a folder that cannot be written.
    """
    try:
        for run in runs:
            put(run.folder / PAGE, run_page(run.result, run.label).encode())
            _pictures(run.result, run.folder)
        if len(runs) > 1 or runs[0].label:
            put(folder / PAGE, sweep_page(runs).encode())
            _accuracies([r.result for r in runs], folder)
    except OSError as e:
        raise ConfigError(f"cannot write to {folder} ({e.strerror})", remedy="choose another folder") from e
    return folder / PAGE


def run_page(run: Result, label: str = "") -> str:
    """The page of one run as HTML text."""
    name = str(run.settings["name"])
    sections = [
        _head(run, name, label),
        _accuracy_figures([run]),
        _pair(_batteries(run), _bytes(run)),
        _pair(_energy(run), _outcomes(run)),
        _pair(_participation(run), _origins(run)),
        _last_round(run),
        _classes_table(run),
        _settings_table(run),
        f"<footer>laconic {escape(run.version)}, run {escape(run.digest)}. Joules are modelled, not measured:"
        " docs/simulator.md has each formula, docs/profiles.md each constant.</footer>",
    ]
    return page(f"{name}: {_percent(run.totals.accuracy)}", sections)


def sweep_page(runs: Sequence[Run]) -> str:
    """The page of a sweep as HTML text, with links to those of its runs."""
    name = str(runs[0].result.settings["name"])
    head = ("Rounds", "Hours", "Accuracy", "Up", "Down", "Work", "Wasted", "Jain")
    rows = []
    for i, r in enumerate(runs):
        t = r.result.totals
        cells = (
            format_count(t.rounds),
            f"{t.hours:.3g}",
            _percent(t.accuracy),
            format_bytes(t.bytes_up),
            format_bytes(t.bytes_down),
            format_joules(t.useful_j + t.silent_j + t.wasted_j + t.upkeep_j),
            format_joules(t.wasted_j),
            f"{t.jain:.2f}",
        )
        link = f'<a href="{escape(r.label)}/{PAGE}" style="color:inherit">{escape(r.label)}</a>'
        rows.append((f"{_line_key(i)} {link}", cells))
    lead = f"{plural(len(runs), 'run')} of one scenario. The colours of the lines are those of the table."
    return page(
        f"{name}: a sweep",
        [
            '<p class="brand"><b>Laconic</b> · a sweep in the simulator</p>',
            f'<h1>{escape(name)}</h1><p class="lead">{lead}</p>',
            _table("Runs", "", ("Run", *head), rows),
            _accuracy_figures([r.result for r in runs]),
        ],
    )


# --- sections ----------------------------------------------------------------------------------------------


def _head(run: Result, name: str, label: str) -> str:
    t = run.totals
    work = t.useful_j + t.silent_j + t.wasted_j + t.upkeep_j
    ended = "its rounds or goal" if t.ended == "finished" else "its hours"
    tiles = [
        (
            "Accuracy, held-out examples",
            _percent(t.accuracy),
            f"{format_count(t.held_out)} examples",
            f"best {_percent(t.best_accuracy)}",
        ),
        (
            "Bytes, all devices",
            format_bytes(t.bytes_up + t.bytes_down),
            f"{format_bytes(t.bytes_up)} up",
            f"{format_bytes(t.bytes_down)} down",
        ),
        (
            "Work: computing and transfers",
            format_joules(work),
            f"wasted {format_joules(t.wasted_j)}",
            f"of {format_joules(t.joules)} in all, idle and users too",
        ),
        (
            "Jain's index of updates",
            f"{t.jain:.2f}",
            f"{plural(t.committed, 'update')}",
            f"none from {t.never} of {plural(t.devices, 'device')}",
        ),
    ]
    return (
        '<p class="brand"><b>Laconic</b> · a scenario in the simulator</p>'
        f"<h1>{escape(name)}</h1>"
        f'<p class="lead">{plural(t.devices, "device")}, {plural(t.rounds, "round")} in {t.hours:.3g} virtual'
        f" hours; a model of {format_count(t.parameters)} parameters. Ended by {ended}."
        f" {escape(label)}</p>"
        '<dl class="tiles">'
        + "".join(
            f"<div>{element('dt', x[0])}{''.join(element('dd', w) for w in x[1:])}</div>" for x in tiles
        )
        + "</dl>"
    )


def _accuracy_figures(runs: Sequence[Result]) -> str:
    cells = [
        _card(cost.title, "", [], _svg(figures.accuracy(cost, runs), f"accuracy{i}", cost.title))
        for i, cost in enumerate(figures.COSTS)
    ]
    return _pair(*cells[:2]) + _pair(*cells[2:])


def _batteries(run: Result) -> str:
    kinds = [k for k, ds in figures.classes(run).items() if ds[0].battery_j is not None]
    if not kinds:
        return _card("Batteries", "Every device is on mains.", [], "")
    order = list(figures.classes(run))
    keys = [(figures.COLOURS[order.index(k) % len(figures.COLOURS)], k, "") for k in kinds]
    says = "Mean charge of a class, within the band from the least to the most."
    return _card(
        "Batteries", says, keys, _svg(figures.batteries(run), "batteries", "Charge by class and hour")
    )


def _bytes(run: Result) -> str:
    keys = [("laconic", "up", ""), ("laconic-soft", "down", "")]
    return _card("Bytes by class", "", keys, _svg(figures.bytes_by_class(run), "bytes", "Bytes by class"))


def _energy(run: Result) -> str:
    by_part = {name: sum(getattr(d, name) for d in run.devices) for name in figures.PARTS}
    keys = [(c, w, format_joules(by_part[n])) for n, (w, c) in figures.PARTS.items() if by_part[n]]
    says = "All that devices took, whether the fleet was the reason or not."
    return _card(
        "Where energy went",
        says,
        keys,
        _svg(figures.stacked(run, figures.PARTS), "energy", "Joules by class"),
    )


def _outcomes(run: Result) -> str:
    keys = [
        (c, w, format_joules(sum(getattr(d, n) for d in run.devices)))
        for n, (w, c) in figures.OUTCOMES.items()
    ]
    says = (
        "Computing and transfers. Wasted: no update was committed. Silent: the gate was shut. Upkeep: models,"
        " offers, pings."
    )
    return _card(
        "What work became",
        says,
        keys,
        _svg(figures.stacked(run, figures.OUTCOMES), "outcomes", "Work by class"),
    )


def _participation(run: Result) -> str:
    keys = _class_keys(run)
    skipped = ", ".join(f"{why} {n}" for why, n in run.totals.skipped.items()) or "none"
    says = f"A bar for each device. Rounds that devices skipped: {skipped}."
    return _card("Who took part", says, keys, _svg(figures.participation(run), "part", "Updates by device"))


def _origins(run: Result) -> str:
    shares = run.totals.joules_by_origin
    keys = [(c, n, format_percent(shares.get(n, 0.0))) for n, c in figures.ORIGINS.items()]
    says = "Shares of all joules by the worst known figure behind them. What the scenario sets is assumed."
    return _card(
        "What the joules rest on",
        says,
        keys,
        _svg(figures.origins(run), "origins", "Joules by origin", height=110),
    )


def _last_round(run: Result) -> str:
    spans = figures.round_spans(run)
    if not spans:
        return ""
    rows = min(len(spans), figures.MOST_ROWS)
    many = f" The first {rows} of {len(spans)} devices that ended." if len(spans) > rows else ""
    last = max((row.round for row in run.rounds), default=0)
    says = f"Round {last}. A ring: the device stayed silent; a cross: it failed or was refused.{many}"
    keys = [(c, w, "") for w, c in figures.STEPS.items()]
    height = 90 + rows * (22 if rows <= 24 else 15)
    drawn = _svg(
        figures.last_round(run), "round", "Line of time of the last round", width=1080, height=height
    )
    return _card("The last round", says, keys, drawn, alone=True)


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
    return _table(
        "Classes", "Sums over the devices of a class; the charge is their mean at the end.", head, rows
    )


def _settings_table(run: Result) -> str:
    standard = dict(flat(msgspec.json.decode(msgspec.json.encode(CampaignSection())), "coordinator"))
    given = [(k, v) for k, v in flat(run.settings) if k not in standard or standard[k] != v]
    rows = "".join(
        f'<tr><th scope="row">{escape(k)}</th>{element("td", _value(v))}</tr>'
        for k, v in given
        if v is not None and k != "name"
    )
    return (
        '<section class="card alone"><h2>Settings</h2><p class="says">Of the coordinator those that are not'
        ' as they are by default.</p><table class="facts"><tbody>' + rows + "</tbody></table></section>"
    )


# --- their parts -------------------------------------------------------------------------------------------


def _card(
    title: str, says: str, keys: Iterable[tuple[str, str, str]], drawn: str, *, alone: bool = False
) -> str:
    legend = "".join(
        f"<li>{_block_key(colour)}{escape(words)}{f' <b>{escape(value)}</b>' if value else ''}</li>"
        for colour, words, value in keys
    )
    return (
        f'<figure class="card{" alone" if alone else ""}">{element("h2", title)}'
        + (f'<p class="says">{escape(says)}</p>' if says else "")
        + (f'<ul class="legend">{legend}</ul>' if legend else "")
        + f"{drawn}</figure>"
    )


def _pair(*cards: str) -> str:
    return f'<div class="pair">{"".join(cards)}</div>'


def _svg(draw: Draw, name: str, label: str, *, width: int = _WIDE, height: int = _HIGH) -> str:
    return drawing.svg(draw, name=name, label=label, width=width, height=height)


def _table(title: str, says: str, head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """`rows`: the first cell as HTML, the others as text."""
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(element("td", c) for c in cells)}</tr>'
        for first, cells in rows
    )
    return (
        f'<section class="card alone">{element("h2", title)}<p class="says">{escape(says)}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="' + escape(title) + '"><table>'
        "<thead><tr>" + "".join(f'<th scope="col">{escape(w)}</th>' for w in head) + "</tr></thead>"
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _class_keys(run: Result) -> list[tuple[str, str, str]]:
    return [
        (figures.line_style(i)[0], kind, format_count(sum(d.committed for d in ds)))
        for i, (kind, ds) in enumerate(figures.classes(run).items())
    ]


def _block_key(colour: str) -> str:
    return (
        '<svg width="14" height="14" aria-hidden="true">'
        f'<rect width="14" height="14" rx="3" fill="var(--{colour})"/></svg>'
    )


def _line_key(i: int) -> str:
    colour, dashes = figures.line_style(i)
    pattern = " ".join(f"{2.2 * d:g}" for d in dashes[1]) if isinstance(dashes, tuple) else "none"
    return (
        '<svg width="30" height="10" aria-hidden="true"><path d="M0 5H30" fill="none"'
        f' style="stroke:var(--{colour});stroke-width:2.4;stroke-dasharray:{pattern}"/></svg>'
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else format_percent(share)


def _value(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _pictures(run: Result, folder: Path) -> None:
    _accuracies([run], folder)
    energy = [
        ("Where energy went", figures.stacked(run, figures.PARTS)),
        ("What work became", figures.stacked(run, figures.OUTCOMES)),
        ("Batteries", figures.batteries(run)),
        ("Who took part", figures.participation(run)),
    ]
    drawing.save_pictures(energy, folder / "energy.png", columns=2)


def _accuracies(runs: Sequence[Result], folder: Path) -> None:
    draws = [(cost.title, figures.accuracy(cost, runs)) for cost in figures.COSTS]
    drawing.save_pictures(draws, folder / "accuracy.png", columns=2)
