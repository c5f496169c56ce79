"""The tables of docs/choosing-a-preset.md, written from the benchmark's results so that they cannot drift."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from _environments import ROOT

PAGE = ROOT / "docs" / "choosing-a-preset.md"

_BLOCK = re.compile(r"(<!-- (\w+): written by scripts/bench codec -->\n).*?(<!-- end -->)", re.DOTALL)

_LIMITED = 100.0
"""Ratios from this on are told without decimals."""


def fill(report: Mapping[str, Any]) -> None:
    """Write the page's tables anew. `report`: what `_result.report` makes of all parts."""
    PAGE.write_text(filled(PAGE.read_text(), report))


def filled(text: str, report: Mapping[str, Any]) -> str:
    """The page with the tables of the parts that there are results of; the others are left as they are."""

    def block(match: re.Match[str]) -> str:
        name = match[2]
        if name == "failed":
            return f"{match[1]}{_failed(report['bars'])}{match[3]}"
        if name not in report["results"]:
            return match[0]
        return f"{match[1]}{_TABLES[name](report['results'][name])}{match[3]}"

    return _BLOCK.sub(block, text)


def _learning(found: Mapping[str, Any]) -> str:
    """A row for each codec, a column for each task and skew."""
    table = found["table"]
    curves = list(dict.fromkeys(c for cell in table.values() for c in cell))
    head = ["", *(cell.replace(", skew 0", ", uniform").replace("uniform.9", "90 %") for cell in table)]
    head = [h.replace(", skew 1", ", 100 %") for h in head]
    rows = []
    for curve in curves:
        cells = [table[cell].get(curve) for cell in table]
        told = [f"{100 * c['accuracy']:.1f} %, {_times(c['ratio'])}" if c else "" for c in cells]
        rows.append([curve, *told])
    return _table(head, rows) + "\n![Accuracy against megabytes, by task and skew](codec-learning.png)\n"


def _distortion(found: Mapping[str, Any]) -> str:
    """A row for each peer."""
    rows = []
    for peer, worst in found["worst"].items():
        if worst:
            where = f"{worst['update']}, error {worst['peer_error']:.2g}"
            lost = f"{found['lost'][peer]} of {found['compared'][peer]}"
            rows.append([peer, f"{found['median'][peer]:.2f}", lost, f"{worst['ratio']:.2f}", where])
    table = _table(["our bytes over those of", "median", "above 1", "worst", "worst update"], rows)
    return table + "\n![Bytes against relative error for four updates](codec-distortion.png)\n"


def _speed(found: Mapping[str, Any]) -> str:
    """A row for each preset and direction; both updates."""
    names = list(next(iter(found.values()))["times_memcpy"])
    rows = []
    for name in [*names, "zstd 1 compress", "zstd 1 decompress", "memcpy"]:
        cells = [f"{of['gb_per_s'][name]:.2f}" for of in found.values()]
        zstd = [_times(of["times_zstd_1"][name]) if name in names else "" for of in found.values()]
        rows.append([name, *(c for pair in zip(cells, zstd, strict=True) for c in pair)])
    head = ["", *(h for name in found for h in (f"{name}, GB/s", "over zstd 1"))]
    return _table(head, rows)


def _rate(found: Mapping[str, Any]) -> str:
    """A row for each preset and way of sending."""
    rows = [
        [name, *(f"{s[k]:.2f}" for k in ("all", "median", "worst"))] for name, s in found["summary"].items()
    ]
    return _table(["bytes over order-0 entropy", "all together", "median", "worst of 1 kB or more"], rows)


def _lives(found: Mapping[str, Any]) -> str:
    """A row for each gate: means over skews and seeds, and the slowest first word."""
    gates = next(iter(found["gates"].values()))
    rows = []
    for gate in gates:
        seeds = [s for skew in found["gates"].values() for s in skew[gate]]
        words = [s["first_word"] for s in seeds]
        slowest = "never" if None in words else str(max(words))
        deficit = 100 * _mean(s["deficit"] for s in seeds)
        quiet = f"{_mean(s['rate_quiet'] for s in seeds):.0%}"
        share = f"{_mean(s['bytes'] for s in seeds):.0%}"
        # A rounded -0.0 would read as a finding.
        rows.append([gate, quiet, slowest, f"{deficit + 0.0:.1f}", share])
    head = ["gate", "sends before the drift", "rounds to speak after it", "points lost", "bytes up"]
    return _table(head, rows)


def _failed(bars: Sequence[Mapping[str, Any]]) -> str:
    """A line for each bar that is not met."""
    missed = [bar for bar in bars if not bar["ok"]]
    lines = [f"- {bar['name']}: {bar['value']:.3g}, where {bar['limit']:g} is wanted" for bar in missed]
    return "\n".join([*lines, ""]) if lines else "Every bar that was measured is met.\n"


_TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "learning": _learning,
    "distortion": _distortion,
    "speed": _speed,
    "rate": _rate,
    "lives": _lives,
}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _times(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= _LIMITED else f"{ratio:.3g}x"


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)
