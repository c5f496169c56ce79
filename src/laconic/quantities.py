"""Numbers and names as people read them: 1.2 MB, 3.4 kJ, 94.1 %, 2 min 5 s."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

NBSP: Final = "\N{NO-BREAK SPACE}"


def format_bytes(count: float) -> str:
    """Bytes in decimal units, two or three figures: `1.2 MB`, `41 kB`, `640 B`."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def format_joules(joules: float) -> str:
    """Energy, two or three figures: `3.4 kJ`, `12 J`, `80 mJ`; nothing is `0 J`."""
    return "0" + NBSP + "J" if joules == 0 else _scaled(joules * 1e3, ("mJ", "J", "kJ", "MJ", "GJ"))


def format_percent(fraction: float, decimals: int = 1) -> str:
    """A fraction as per cent: `94.1 %`."""
    return f"{100 * fraction:.{decimals}f}{NBSP}%"


def format_charge(begin: float, end: float) -> str:
    """A battery's charge before and after, with as many decimals as it takes to see a difference."""
    decimals = next((d for d in range(4) if f"{100 * begin:.{d}f}" != f"{100 * end:.{d}f}"), 0)
    return f"{format_percent(begin, decimals)} \N{RIGHTWARDS ARROW} {format_percent(end, decimals)}"


def format_seconds(seconds: float) -> str:
    """A duration: `7.2 s`, `72 s`, `2 min 5 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    return f"{whole}{NBSP}s" if whole < 120 else f"{whole // 60}{NBSP}min {whole % 60}{NBSP}s"


def format_hours(hours: float) -> str:
    """A long duration, in the unit that suits it: `23 s`, `40 min`, `13.2 h`, `5.8 d`."""
    if hours < 1 / 30:
        return format_seconds(3600 * hours)
    minutes = round(60 * hours)
    if minutes < 120:
        return f"{minutes}{NBSP}min"
    value, unit = (hours, "h") if hours < 71.95 else (hours / 24, "d")
    return f"{value:.1f}{NBSP}{unit}"


def format_times(ratio: float) -> str:
    """A ratio: `41×`, `4.1×`."""
    return f"{ratio:.1f}\N{MULTIPLICATION SIGN}" if ratio < 9.95 else f"{ratio:.0f}\N{MULTIPLICATION SIGN}"


def format_count(count: int) -> str:
    """A whole number, grouped by thousands: `18 410`; four figures stay together."""
    return str(count) if abs(count) < 10_000 else f"{count:,}".replace(",", NBSP)


def plural(count: int, one: str, many: str | None = None) -> str:
    """A number and its noun: `1 round`, `30 rounds`."""
    return f"{format_count(count)} {one if count == 1 else many or one + 's'}"


def legible(text: str) -> str:
    """A text without what cannot be shown or would turn the line around: control and format characters."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in text)


def _scaled(value: float, units: Sequence[str]) -> str:
    step = 0
    # 999.6 would be written as 1000, which belongs to the next unit.
    while abs(value) >= 999.5 and step + 1 < len(units):
        value, step = value / 1000, step + 1
    whole = abs(value) >= 9.95 or value == int(value)
    return f"{value:.{0 if whole else 1}f}{NBSP}{units[step]}"
