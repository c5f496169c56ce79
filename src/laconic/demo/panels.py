"""The report's figures with their titles, legends and what they say in words, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from laconic.demo import figures
from laconic.demo.figures import ALONE, FEDAVG, LACONIC, POOLED, Draw, Series
from laconic.demo.results import DemoResult, DeviceResult, FleetResult
from laconic.pages import element, escape
from laconic.quantities import format_bytes, format_joules, format_percent, legible

# Of these accuracies, the highest that both runs reached is the one whose price is told.
_MILESTONES: Final = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
# Width and height of the lines' figures: for a column of the page, for a phone.
_SIZES: Final = (("wide", 520, 340), ("narrow", 340, 290))


def by_round(result: DemoResult) -> str:
    """What training together is worth."""
    curves = [(LACONIC, result.laconic.accuracy), (FEDAVG, result.fedavg.accuracy)]
    curves += [(s, v[-1]) for s, v in ((POOLED, result.pooled), (ALONE, result.alone)) if v]
    ends = "; ".join(f"{s.label}: {format_percent(v)}" for s, v in curves)
    gain = result.accuracy - result.accuracy_alone
    says = (
        f"Training together is worth {abs(100 * gain):.0f} points over training alone."
        if gain >= 0.01
        else ""
    )
    label = f"Line chart of accuracy by round. At the end: {ends}."
    legend = [(_line_key(s), s.short, format_percent(v)) for s, v in curves]
    return _figure(
        "Accuracy by round", says, legend, _both(figures.accuracy_by_round, result, "round", label)
    )


def by_bytes(result: DemoResult) -> str:
    """What an accuracy costs on the wire."""
    runs = [(LACONIC, result.laconic), (FEDAVG, result.fedavg)]
    spent = [(s, format_bytes(r.points[-1].bytes_up + r.points[-1].bytes_down)) for s, r in runs]
    says = ""
    for goal in _MILESTONES:
        costs = [_cost(run, goal) for _, run in runs]
        if costs[0] is not None and costs[1] is not None:
            says = (
                f"{format_percent(goal, 0)} accuracy costs {format_bytes(costs[0])} with Laconic,"
                f" {format_bytes(costs[1])} with FedAvg."
            )
            break
    ends = "; ".join(f"{s.label}: {words}" for s, words in spent)
    label = f"Line chart of accuracy by bytes on the wire, logarithmic. Spent in all: {ends}. {says}"
    legend = [(_line_key(s), s.short, words) for s, words in spent]
    drawing = _both(figures.accuracy_by_bytes, result, "bytes", label)
    return _figure("Accuracy by megabyte on the wire", says, legend, drawing)


def bytes_by_device(result: DemoResult) -> str:
    """Who sent and received how much."""
    devices, baseline = result.laconic.devices, result.fedavg.devices
    legend = [
        (_mark_key(series, up), f"{name} {'up' if up else 'down'}", f"{format_bytes(total)}")
        for series, name, fleet in ((LACONIC, "Laconic", devices), (FEDAVG, "FedAvg", baseline))
        for up, total in ((True, sum(d.bytes_up for d in fleet)), (False, sum(d.bytes_down for d in fleet)))
    ]
    ends = "; ".join(f"{name}: {words}" for _, name, words in legend)
    label = f"Dot chart of bytes sent and received by each device, logarithmic. All together: {ends}."
    drawing = _both(figures.bytes_by_device, result, "device-bytes", label)
    means = [
        format_bytes(sum(d.bytes_up + d.bytes_down for d in f) / max(1, len(f))) for f in (devices, baseline)
    ]
    says = f"{_shown(devices)}On average {means[0]} with Laconic, {means[1]} with FedAvg."
    return _figure("Bytes by device", says, legend, drawing)


def joules_by_device(result: DemoResult, profile: str) -> str:
    """What each device spent, by the model that `profile` names."""
    legend = [
        (_block_key(series.colour + soft), f"{name} {what}", format_joules(total))
        for series, name, fleet in (
            (LACONIC, "Laconic", result.laconic.devices),
            (FEDAVG, "FedAvg", result.fedavg.devices),
        )
        for soft, what, total in (
            ("", "compute", sum(d.joules_compute for d in fleet)),
            ("-soft", "radio", sum(d.joules_radio for d in fleet)),
        )
    ]
    says = _shown(result.laconic.devices) + (f"Profile: {profile}." if profile else "Not measured.")
    ends = "; ".join(f"{name}: {words}" for _, name, words in legend)
    label = f"Bar chart of modelled joules by device, compute and radio. All together: {ends}."
    drawing = _both(figures.joules_by_device, result, "device-joules", label)
    return _figure("Joules by device", says, legend, drawing, tag="modelled")


def _figure(
    title: str, says: str, legend: Sequence[tuple[str, str, str]], drawing: str, tag: str = ""
) -> str:
    badge = f' <span class="tag">{escape(tag)}</span>' if tag else ""
    keys = "".join(
        f"<li>{key}<span>{escape(name)} {element('b', value)}</span></li>" for key, name, value in legend
    )
    caption = f"<h2>{escape(title)}{badge}</h2>" + (f'<p class="says">{escape(says)}</p>' if says else "")
    return (
        f'<figure class="card"><figcaption>{caption}</figcaption><ul class="legend">{keys}</ul>'
        f"{drawing}</figure>"
    )


def _both(draw: Draw, result: DemoResult, name: str, label: str) -> str:
    """The figure twice, for a wide page and for a phone; the style sheet shows one."""
    rows = min(len(result.laconic.devices), figures.MOST_ROWS)
    tall = 64 + rows * figures.row_height(rows) if name.startswith("device") else 0
    return "".join(
        f'<div class="{kind}">'
        + figures.svg(
            draw, result, name=f"{name}-{kind}", label=legible(label), width=width, height=tall or height
        )
        + "</div>"
        for kind, width, height in _SIZES
    )


def _line_key(series: Series) -> str:
    dashes = " ".join(f"{d * series.width:.1f}" for d in series.dashes)
    return (
        '<svg width="30" height="10" aria-hidden="true"><path d="M0 5H30" fill="none"'
        f' style="stroke:var(--{series.colour});stroke-width:{series.width};'
        f'stroke-dasharray:{dashes or "none"}"/></svg>'
    )


def _mark_key(series: Series, up: bool) -> str:
    path = "M6 1.5L11 10.5H1Z" if up else "M6 10.5L11 1.5H1Z"
    return (
        '<svg width="12" height="12" aria-hidden="true">'
        f'<path d="{path}" fill="var(--{series.colour})"/></svg>'
    )


def _block_key(colour: str) -> str:
    return (
        '<svg width="14" height="14" aria-hidden="true">'
        f'<rect width="14" height="14" rx="3" fill="var(--{colour})"/></svg>'
    )


def _cost(run: FleetResult, goal: float) -> int | None:
    """Bytes until the accuracy first reached the goal; None if it never did, or without a byte."""
    return next((p.bytes_up + p.bytes_down for p in run.points if p.accuracy >= goal), None) or None


def _shown(devices: Sequence[DeviceResult]) -> str:
    many = len(devices) - figures.MOST_ROWS
    return f"The first {figures.MOST_ROWS} of {len(devices)} devices. " if many > 0 else ""
