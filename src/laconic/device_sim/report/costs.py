"""What taking part costs one device: in a round, in a day, on the bill of a month."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from laconic.device_sim.report import cards, figures
from laconic.device_sim.scenario.results import DeviceRow, Result
from laconic.pages import escape
from laconic.quantities import format_bytes, format_joules, format_percent

_DAY: Final = 24.0
_MONTH: Final = 30.0
_HEAD: Final = (
    "Class",
    "Updates",
    "Bytes a round",
    "Work a round",
    "Bytes a day",
    "On the bill in 30 days",
    "Work a day",
    "Of a full battery",
)
_ROUND_COLUMNS: Final = 4


def table(run: Result) -> str:
    """Means over the devices of each class. Days only of runs of a day or more: hours are not alike."""
    t = run.totals
    days = t.hours / _DAY if t.hours >= _DAY else None
    says = "Means of a class's devices, those that were never asked among them; pings and offers included."
    if days is None:
        says += " What a day comes to is told of runs of 24 hours or more."
    else:
        says += (
            " On the bill: all that went up and down, with the headers of TCP and IP and with pings, as a"
            " provider of mobile data counts."
        )
    rows = [(escape(kind), _cells(devices, t.rounds, days)) for kind, devices in figures.classes(run).items()]
    head = _HEAD if days is not None else _HEAD[:_ROUND_COLUMNS]
    return cards.table("What it costs a device", says, head, rows)


def _cells(devices: Sequence[DeviceRow], rounds: int, days: float | None) -> list[str]:
    n = len(devices)
    up, down = (sum(getattr(d, f"bytes_{way}") for d in devices) / n for way in ("up", "down"))
    work_j = sum(getattr(d, part) for d in devices for part in figures.OUTCOMES) / n
    cells = [
        f"{sum(d.committed for d in devices) / n:.3g}",
        _both(up / rounds, down / rounds) if rounds else "–",
        format_joules(work_j / rounds) if rounds else "–",
    ]
    if days is None:
        return cells
    bill = sum(d.ip_bytes_up + d.ip_bytes_down for d in devices) / n / days * _MONTH
    capacities_j = [d.battery_j for d in devices if d.battery_j is not None]
    share = work_j / days / (sum(capacities_j) / len(capacities_j)) if capacities_j else None
    return [
        *cells,
        _both(up / days, down / days),
        format_bytes(bill),
        format_joules(work_j / days),
        "mains" if share is None else format_percent(share, 2),
    ]


def _both(up: float, down: float) -> str:
    return f"{format_bytes(up)} up\n{format_bytes(down)} down"
