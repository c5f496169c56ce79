"""The figures of a fleet: energy, batteries, bytes, who took part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from laconic.device_sim.report import ticks
from laconic.device_sim.scenario.results import DeviceRow, Result
from laconic.device_sim.signals import HOUR_S
from laconic.drawing import LIGHT, Draw, accuracy_axis
from laconic.quantities import NBSP, format_bytes, format_joules, format_percent

COLOURS: Final = ("laconic", "fedavg", "pooled", "violet", "rose", "gold", "alone")
_DASHES: Final = ("-", (0, (6, 2)), (0, (3, 1.5)), (0, (1, 1.4)))
PARTS: Final = {
    "idle_j": ("idle", "alone"),
    "user_j": ("user", "gold"),
    "compute_j": ("computing", "laconic"),
    "promotion_j": ("radio: promotion", "fedavg-soft"),
    "active_j": ("radio: active", "fedavg"),
    "tail_j": ("radio: tail", "rose"),
    "radio_idle_j": ("radio: idle", "violet"),
    "self_discharge_j": ("self-discharge", "pooled"),
}
OUTCOMES: Final = {
    "useful_j": ("useful", "laconic"),
    "silent_j": ("silent", "pooled"),
    "upkeep_j": ("upkeep", "laconic-soft"),
    "wasted_j": ("wasted", "fedavg"),
}
ORIGINS: Final = {"measured": "pooled", "published": "laconic", "derived": "gold", "assumed": "fedavg"}
VIRTUAL: Final = "virtual {}"


def line_style(i: int) -> tuple[str, object]:
    """Colour and dashes of the i-th line: no two of the first 28 are alike."""
    return COLOURS[i % len(COLOURS)], _DASHES[i // len(COLOURS) % len(_DASHES)]


def classes(run: Result) -> dict[str, list[DeviceRow]]:
    """The devices by class, in the scenario's order."""
    found: dict[str, list[DeviceRow]] = {}
    for d in run.devices:
        found.setdefault(d.kind, []).append(d)
    return found


def powered(run: Result) -> list[str]:
    """Classes of devices with batteries."""
    return [kind for kind, devices in classes(run).items() if devices[0].battery_j is not None]


def batteries(run: Result) -> Draw:
    """Mean charge by class over time to the run's end, in the band from the least to the most."""

    def draw(axes: Axes) -> None:
        for i, (kind, devices) in enumerate(classes(run).items()):
            rows = [c for c in run.classes if c.name == kind]
            points = [
                (c.hours, c.charge_least, c.charge_mean, c.charge_most)
                for c in rows
                if c.charge_least is not None and c.charge_mean is not None and c.charge_most is not None
            ]
            # Rows are written when versions are made: before the first and after the last there is time, too.
            if (begin := _charges(devices, "battery_start_j")) is not None and not points:
                points.append((0.0, *begin))
            if (end := _charges(devices, "battery_end_j")) is not None and points[-1][0] < run.totals.hours:
                points.append((run.totals.hours, *end))
            if points:
                hours, least, mean, most = zip(*points, strict=True)
                colour, _ = line_style(i)
                axes.fill_between(hours, least, most, color=LIGHT[colour], alpha=0.15, linewidth=0)
                axes.plot(hours, mean, color=LIGHT[colour], linewidth=2.2, clip_on=False, label=kind,
                          marker="o" if len(points) < 3 else None)  # fmt: skip
        accuracy_axis(axes)
        axes.margins(x=0)
        ticks.times(axes, VIRTUAL, each_s=HOUR_S)

    return draw


def _charges(devices: Sequence[DeviceRow], at: str) -> tuple[float, float, float] | None:
    """The least, the mean and the most charge of devices with batteries."""
    found = [getattr(d, at) / d.battery_j for d in devices if d.battery_j]
    return (min(found), sum(found) / len(found), max(found)) if found else None


def bytes_by_class(run: Result) -> Draw:
    """Bytes a device, by class: up and down."""

    def draw(axes: Axes) -> None:
        kinds = classes(run)
        for offset, name, soft in ((-0.2, "bytes_up", ""), (0.2, "bytes_down", "-soft")):
            means = [sum(getattr(d, name) for d in ds) / len(ds) for ds in kinds.values()]
            places = [y + offset for y in range(len(kinds))]
            axes.barh(places, means, 0.36, color=LIGHT["laconic" + soft], zorder=3)
            _told(axes, places, means, format_bytes)
        _rows(axes, list(kinds))
        ticks.numbers(axes, ticks.BYTES)
        axes.set_xlabel("Mean of the class's devices")

    return draw


def stacked(run: Result, parts: dict[str, tuple[str, str]]) -> Draw:
    """Joules a device by class, divided into parts."""

    def draw(axes: Axes) -> None:
        kinds = classes(run)
        left = [0.0] * len(kinds)
        for name, (words, colour) in parts.items():
            means = [sum(getattr(d, name) for d in ds) / len(ds) for ds in kinds.values()]
            label = words if any(means) else None
            axes.barh(range(len(kinds)), means, 0.56, left=left, color=LIGHT[colour], zorder=3, label=label)
            left = [a + b for a, b in zip(left, means, strict=True)]
        _told(axes, list(range(len(kinds))), left, format_joules)
        _rows(axes, list(kinds))
        ticks.numbers(axes, ticks.JOULES)
        axes.set_xlabel("Mean of the class's devices")

    return draw


def participation(run: Result) -> Draw:
    """Committed updates of every device, class by class, the most first."""

    def draw(axes: Axes) -> None:
        first = 0
        for i, (kind, devices) in enumerate(classes(run).items()):
            counts = sorted((d.committed for d in devices), reverse=True)
            colour, _ = line_style(i)
            places = range(first, first + len(counts))
            axes.bar(places, counts, 0.84, color=LIGHT[colour], zorder=3, label=kind)
            first += len(counts)
        axes.set_xlim(-0.7, first - 0.3)
        axes.set_xticks([])
        axes.grid(visible=False, axis="x")
        ticks.counts(axes)
        axes.set_xlabel("Devices")
        axes.set_ylabel("Committed updates")

    return draw


def origins(run: Result) -> Draw:
    """Shares of all joules by how well the figures behind them are known."""

    def draw(axes: Axes) -> None:
        left = 0.0
        for name, colour in ORIGINS.items():
            share = run.totals.joules_by_origin.get(name, 0.0)
            axes.barh([0], [share], 0.5, left=left, color=LIGHT[colour], zorder=3)
            left += share
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.5, 0.5)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_percent(x, 0)))

    return draw


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), list(names))
    axes.tick_params(axis="y", labelcolor=LIGHT["ink"])
    axes.grid(visible=False, axis="y")


def _told(axes: Axes, places: Sequence[float], values: Sequence[float], form: Callable[[float], str]) -> None:
    told_before = bool(axes.texts)
    for y, value in zip(places, values, strict=True):
        axes.text(value, y, NBSP + form(value), va="center", fontsize=10, color=LIGHT["muted"])
    # Called for one set of bars after the other: the longest of all is to fit, with its figure.
    most = max((v * 1.2 for v in values), default=0.0)
    axes.set_xlim(0, max(most, axes.get_xlim()[1] if told_before else 0.0) or 1.0)
