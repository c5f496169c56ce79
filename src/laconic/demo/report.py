"""The demonstration's report: one HTML page that needs nothing else, with its figures inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from laconic import pages
from laconic.demo.broker import SIMULATED
from laconic.demo.figures import save_picture
from laconic.demo.panels import by_bytes, by_round, bytes_by_device, joules_by_device
from laconic.demo.results import DemoResult, DeviceResult
from laconic.pages import element, escape
from laconic.quantities import (
    format_bytes,
    format_charge,
    format_count,
    format_joules,
    format_percent,
    format_seconds,
    format_times,
    plural,
)

__all__ = ["save_picture", "write_report"]

_PROFILE_KEYS: Final = ("profile", "board", "radio")


def write_report(result: DemoResult, path: Path) -> None:
    """Write the page to `path`, whose folder is made if it is missing; same result, same bytes.

    A device of the baseline is drawn beside the one of the same name. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(result), encoding="utf-8", newline="\n")


def page(result: DemoResult) -> str:
    """The report as HTML text."""
    title = (
        f"Laconic: {format_percent(result.accuracy)}, {' '.join(_fewer(result.ratio))} uncompressed FedAvg"
    )
    profile = _profile(result.settings)
    return pages.page(
        title,
        [
            _headline(result),
            f'<div class="pair">{by_round(result)}{by_bytes(result)}</div>',
            f'<div class="pair">{bytes_by_device(result)}{joules_by_device(result, profile)}</div>',
            _table(result.laconic.devices, result.settings),
            f'<div class="pair">{_settings(result)}{_how(result, profile)}</div>',
            f"<footer>laconic {escape(result.version)} on {escape(result.machine)}</footer>",
        ],
    )


# --- the sections ------------------------------------------------------------------------------------------


def _headline(result: DemoResult) -> str:
    (fewer, than), ours, theirs = _fewer(result.ratio), result.bytes, result.bytes_fedavg
    silent = sum(d.silent for d in result.laconic.devices)
    rounds = sum(d.silent + d.committed for d in result.laconic.devices)
    quiet = f"In {format_percent(silent / rounds, 0)} of their rounds they stayed silent." if silent else ""
    joules = format_joules(result.joules) if result.joules else "not modelled"
    tiles = [
        (
            "Accuracy, held-out digits",
            format_percent(result.accuracy),
            f"FedAvg {format_percent(result.accuracy_fedavg)}",
            f"alone {format_percent(result.accuracy_alone)}, pooled {format_percent(result.accuracy_pooled)}",
        ),
        (
            "Bytes on the wire, all devices",
            format_bytes(ours.total),
            f"FedAvg {format_bytes(theirs.total)}",
            f"{format_bytes(ours.up)} up, {format_bytes(ours.down)} down",
        ),
        (
            "Energy, all devices, modelled",
            joules,
            f"FedAvg {format_joules(result.joules_fedavg)}" if result.joules_fedavg else "",
            "compute and radio, above idle" if result.joules else "",
        ),
        (
            "Time, all of the demonstration",
            format_seconds(result.seconds),
            f"{plural(result.rounds, 'round')}: {format_seconds(result.laconic.seconds)}",
            f"FedAvg {format_seconds(result.fedavg.seconds)}",
        ),
    ]
    return (
        '<p class="brand"><b>Laconic</b> · demonstration on handwritten digits</p>'
        f"<h1>{format_percent(result.accuracy)} accuracy with <em>{fewer}</em> {than} uncompressed FedAvg"
        f" ({format_percent(result.accuracy_fedavg)})</h1>"
        f'<p class="lead">{plural(result.devices, "device")} trained one model in'
        f" {plural(result.rounds, 'round')} over MQTT, and no example left its device. {quiet}</p>"
        + '<dl class="tiles">'
        + "".join(
            f"<div>{element('dt', t[0])}{''.join(element('dd', w) for w in t[1:] if w)}</div>" for t in tiles
        )
        + "</dl>"
    )


def _table(devices: Sequence[DeviceResult], settings: Mapping[str, object]) -> str:
    head = (
        "Device",
        "Samples",
        "Main class",
        "Updates sent",
        "Silent rounds",
        "Spoke in",
        "Up",
        "Down",
        "Energy",
        "Battery",
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(d.name)}</th>'
        + "".join(
            element("td", words)
            for words in (
                format_count(d.samples),
                str(d.main_class),
                format_count(d.committed),
                format_count(d.silent),
                _spoke(d.committed, d.silent),
                format_bytes(d.bytes_up),
                format_bytes(d.bytes_down),
                format_joules(d.joules_compute + d.joules_radio),
                format_charge(d.charge_begin, d.charge_end),
            )
        )
        + "</tr>"
        for d in devices
    )
    foot = (
        format_count(sum(d.samples for d in devices)),
        "",
        format_count(sum(d.committed for d in devices)),
        format_count(sum(d.silent for d in devices)),
        _spoke(sum(d.committed for d in devices), sum(d.silent for d in devices)),
        format_bytes(sum(d.bytes_up for d in devices)),
        format_bytes(sum(d.bytes_down for d in devices)),
        format_joules(sum(d.joules_compute + d.joules_radio for d in devices)),
        "",
    )
    return (
        '<section class="card alone"><h2>Devices</h2>'
        '<p class="says">Of the run with Laconic. In a silent round a device had nothing worth sending, or no'
        f" battery or bytes to spare.{escape(_aim(settings))}</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Devices"><table class="devices">'
        "<thead><tr>"
        + "".join(f'<th scope="col">{words}</th>' for words in head)
        + f'</tr></thead><tbody>{rows}</tbody><tfoot><tr><th scope="row">All</th>'
        + "".join(element("td", words) for words in foot)
        + "</tr></tfoot></table></div></section>"
    )


def _settings(result: DemoResult) -> str:
    facts = [
        ("devices", format_count(result.devices)),
        ("rounds", format_count(result.rounds)),
        ("seed", str(result.seed)),
        ("model's parameters", format_count(result.parameters)),
        ("held-out samples", format_count(result.held_out)),
        ("broker", result.broker),
        *((k.replace(".", ": ").replace("_", " "), v) for k, v in _flat(result.settings) if k != "rounds"),
    ]
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th>{element("td", v)}</tr>' for k, v in facts)
    return (
        f'<section class="card"><h2>Settings</h2><table class="facts"><tbody>{rows}</tbody></table></section>'
    )


def _how(result: DemoResult, profile: str) -> str:
    coordinator = result.laconic.coordinator_bytes
    simulated = result.broker == SIMULATED
    counted = "the simulator weighs them" if simulated else "the kernel counts them"
    where = "in the simulator, over no broker" if simulated else "over a real broker"
    kind = "simulated" if simulated else "real"
    items = [
        ("Accuracy", f"On {plural(result.held_out, 'sample')} that no device and no training has seen."),
        (
            "Bytes",
            f"Those of the devices' sockets, as {counted}: MQTT framing, acknowledgements and"
            " control messages are in, on both sides of the ratio. The coordinator's own socket carried"
            f" {format_bytes(coordinator.up)} up and {format_bytes(coordinator.down)} down.",
        ),
        (
            "Joules and battery",
            "Modelled, not measured: seconds of computing and bytes on the wire, by published figures of a"
            " board and a radio" + (f" ({profile})." if profile else "."),
        ),
        (
            "Uncompressed FedAvg",
            f"A {kind} run of the same stack on the same data, with compression and gate off; not a formula.",
        ),
        ("Alone", "Each device trains on its own examples only, as long as in the federated run; the mean."),
        ("Pooled", "One model trains on all devices' examples in one place, where no data stays private."),
        ("Machine", f"{result.machine}; laconic {result.version}. Everything ran on it, {where}."),
    ]
    terms = "".join(f"<div>{element('dt', term)}{element('dd', words)}</div>" for term, words in items)
    return f'<section class="card"><h2>How this was measured</h2><dl class="how">{terms}</dl></section>'


# --- their parts -------------------------------------------------------------------------------------------


def _spoke(committed: int, silent: int) -> str:
    """The share of its rounds in which a device sent an update."""
    return format_percent(committed / (committed + silent), 0) if committed + silent else "–"


def _aim(settings: Mapping[str, object]) -> str:
    """What the gate was to achieve, to be read beside what it did; nothing for a gate that is open."""
    known = {k.rpartition(".")[2].removeprefix("gate_"): v for k, v in _flat(settings) if "gate" in k}
    said = []
    if known.get("target_rate", "0") != "0":
        said.append(f"speak in {format_percent(float(known['target_rate']), 0)} of the rounds")
    if known.get("bytes_per_day", "0") != "0":
        said.append(f"send {format_bytes(float(known['bytes_per_day']))} a day")
    if said:
        return f" The gate's target was to {' and to '.join(said)}."
    threshold, mode = known.get("threshold", "0"), known.get("mode")
    beside = {"running": " times its usual norm", "model": " times the model's norm"}.get(mode or "", "")
    return "" if threshold == "0" else f" The gate held back what was below {threshold}{beside}."


def _fewer(ratio: float) -> tuple[str, str]:
    """How the bytes compare, and the word that leads on to what they are compared with."""
    if ratio >= 1.05:
        return f"{format_times(ratio)} fewer bytes", "than"
    if ratio >= 0.95:
        return "as many bytes", "as"
    return (f"{format_times(1 / ratio)} more bytes", "than") if ratio > 0 else ("uncounted bytes", "against")


def _profile(settings: Mapping[str, object]) -> str:
    """The power profile's names, wherever in the settings they stand."""
    found = {k.rpartition(".")[2]: v for k, v in _flat(settings)}
    return " + ".join(found[k] for k in _PROFILE_KEYS if found.get(k))


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            yield f"{prefix}{key}", "yes" if value else "no"
        elif isinstance(value, float):
            yield f"{prefix}{key}", f"{value:g}"
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", "none" if value is None else str(value)
