"""What a run's page says of learning: quality by cost, each device's scores, losses of training."""

from __future__ import annotations

import numpy as np

from laconic.device_sim.report import cards, curves, figures, remarks
from laconic.device_sim.report.curves import Curve
from laconic.device_sim.report.losses import by_rounds, within_rounds
from laconic.device_sim.scenario.results import Result
from laconic.pages import escape
from laconic.quantities import format_count, plural


def qualities(run: Result) -> str:
    """How good the model is, by what it cost, beside the baselines."""
    measure = curves.measured([run])
    kinds = curves.kinds([run])
    trained = [(curves.KINDS[k], k, curves.told(curves.last(run, measure, k), measure)) for k in kinds]
    if not curves.made([run]):
        return cards.card(measure.capitalize(), _unmade(run), trained, "", alone=True)
    drawn = []
    for i, cost in enumerate(curves.COSTS):
        title = f"{measure.capitalize()} {cost.title}"
        keys, says = [], ""
        if kinds and cost.known:
            keys = [("laconic", "federated", curves.told(curves.last(run, measure), measure))]
            keys += trained
            devices = max((r.devices for r in run.baselines if r.kind == "alone"), default=0)
            says = (
                f"Alone: the mean of {plural(devices, 'device')}, in the band from the least to the most."
                if devices
                else "Pooled: all data in one place."
            )
        if curves.personal(run):
            says = f"Of a newcomer, whose own layers are untrained. {says}".strip()
        draw = curves.quality(cost, [Curve("federated", [run])])
        drawn.append(cards.card(title, says, keys, cards.svg(draw, f"quality{i}", title)))
    return cards.pairs(*drawn)


def _unmade(run: Result) -> str:
    why = remarks.unmade(run.totals)
    return f"{why[:1].upper()}{why[1:]}. The model is what it began as."


def scores(run: Result) -> str:
    """How good models are on devices' own examples; nothing where none are held out."""
    if not run.scores:
        return ""
    measure = curves.score_measure(run.scores)
    says = (
        "Each device's own held-out examples. A dot is a device, the stroke the mean. Federated: with the"
        " layers that the device keeps to itself, if there are such; shared: without."
    )
    drawn = cards.wide_svg(
        curves.scores(run.scores), "scores", f"{measure.capitalize()} by model", height=240
    )
    rows = []
    for model in curves.SCORES:
        values = curves.of_model(run.scores, model, measure)
        if not values:
            continue
        cuts = [float(x) for x in np.quantile(values, (0.0, 0.1, 0.5, 0.9, 1.0))]
        cells = [curves.told(x, measure) for x in (sum(values) / len(values), *cuts)]
        rows.append((escape(model), (format_count(len(values)), *cells, _better(run, model, measure))))
    head = ("Model", "Devices", "Mean", "Least", "10 %", "Median", "90 %", "Most", "Federated is better")
    return cards.card("Scores by device", says, [], drawn, alone=True) + cards.table(
        "Scores", "Over the devices that have such a model.", head, rows
    )


def _better(run: Result, model: str, measure: str) -> str:
    """For how many devices the federation's model is better than another."""
    if model == "federated":
        return ""
    pairs = [
        (getattr(r, f"federated_{measure}"), getattr(r, f"{model}_{measure}"))
        for r in run.scores
        if None not in (getattr(r, f"federated_{measure}"), getattr(r, f"{model}_{measure}"))
    ]
    better = sum(a > b if measure == "accuracy" else a < b for a, b in pairs)
    return f"for {better} of {len(pairs)}"


def losses(run: Result) -> str:
    """Losses of training; nothing where they were not written down."""
    if not run.losses:
        return ""
    draw, devices, numbered = within_rounds(run)
    keys = [(figures.line_style(i)[0], name, "") for i, name in enumerate(devices)]
    alone = next((r.device for r in run.losses if r.kind == "alone"), None)
    if alone is not None:
        keys.append(("alone", f"{alone} alone (dashed)", ""))
    keys.append(("ink", "the federation, on all examples", ""))
    many = len({r.device for r in run.losses if r.kind == "device"})
    says = "Losses of batches as devices train; where a round begins, they go on from the federation's model."
    if many > len(devices):
        says += f" {len(devices)} of {many} devices."
    rounds = f"rounds {numbered[0]} to {numbered[-1]}" if numbered else "no rounds"
    teeth = cards.card(
        f"Loss within {rounds}", says, keys,
        cards.wide_svg(draw, "teeth", "Loss by step", height=380), alone=True,
    )  # fmt: skip
    means = [("laconic", "devices, while they train", ""), ("ink", "the federation, on all examples", "")]
    if alone is not None:
        means.insert(1, ("alone", "alone", ""))
    by_round = cards.card(
        "Loss by round", "Mean over a round's steps; the band is from the least device to the most.", means,
        cards.wide_svg(by_rounds(run), "losses", "Loss by round", height=320), alone=True,
    )  # fmt: skip
    return teeth + by_round
