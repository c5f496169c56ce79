"""Tables of the documentation, written from the benchmark's results so that they cannot drift."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(
    r"(<!-- ([\w-]+): written by scripts/bench coordinator -->\n).*?(<!-- end -->)", re.DOTALL
)


def fill(results: Mapping[str, Any]) -> None:
    """Write every table anew that there are results of."""
    for page in DOCS.glob("*.md"):
        text = page.read_text()
        if (after := filled(text, results)) != text:
            page.write_text(after)


def filled(text: str, results: Mapping[str, Any]) -> str:
    """A page with the tables of the parts that there are results of; the others are left as they are."""

    def block(match: re.Match[str]) -> str:
        table = _TABLES.get(match[2])
        part = match[2].partition("-")[0]
        return (
            match[0] if table is None or part not in results else match[1] + table(results[part]) + match[3]
        )

    return _BLOCK.sub(block, text)


def _attacks(spread: str) -> Callable[[Mapping[str, Any]], str]:
    """A row for each rule, a column for each attack; how often a backdoor opens after a slash."""

    def table(found: Mapping[str, Any]) -> str:
        accuracy, backdoor = found["accuracy"][spread], found["backdoor"][spread]
        return _table(accuracy, backdoor)

    return table


def _table(accuracy: Mapping[str, Mapping[str, float]], backdoor: Mapping[str, Mapping[str, float]]) -> str:
    attacks = list(dict.fromkeys(a for row in accuracy.values() for a in row))
    lines = [f"| | {' | '.join(attacks)} |", "|---" * (len(attacks) + 1) + "|"]
    for rule, row in accuracy.items():
        cells = []
        for attack in attacks:
            opened = backdoor.get(rule, {}).get(attack)
            cells.append(f"{100 * row[attack]:.0f}" + ("" if opened is None else f" / {100 * opened:.0f}"))
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _stragglers(found: Mapping[str, Any]) -> str:
    """A row for each mode: seconds with each fleet, and how many times longer with stragglers."""
    lines = [
        "| | all well, s | without them, s | with them, s | times all well | times without |",
        "|---|---|---|---|---|---|",
    ]
    for mode, row in found["seconds"].items():
        ratio = found["ratio"][mode]
        cells = [f"{row[fleet]:.0f}" for fleet in ("well", "without", "stragglers")]
        cells += [f"{ratio[fleet]:.2f}" for fleet in ("well", "without")]
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _selection(found: Mapping[str, Any]) -> str:
    """A row for each strategy: medians to the target, what it takes in times of uniform, Jain's index."""
    lines = [
        "| | rounds | hours | kJ | MB | joules, times uniform | bytes, times uniform | Jain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for strategy, row in found["median"].items():
        ratio = found["ratio"][strategy]
        cells = [f"{row['rounds']:.0f}", f"{row['hours']:.2f}", f"{row['joules'] / 1000:.1f}"]
        cells += [f"{row['megabytes']:.1f}", f"{ratio['joules']:.2f}", f"{ratio['megabytes']:.2f}"]
        lines.append(f"| {strategy} | {' | '.join(cells)} | {row['jain']:.2f} |")
    return "\n".join(lines) + "\n"


_TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "stragglers": _stragglers,
    "selection": _selection,
    "attacks-uniform": _attacks("uniform"),
    "attacks-skewed": _attacks("skewed"),
    "attacks-compressed": lambda found: _table(found["compressed"], {}),
}
