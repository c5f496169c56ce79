"""The one JSON object that every benchmark prints."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bar:
    """A figure that must stay within a limit."""

    name: str
    value: float | None
    """None: there was nothing to measure, and the bar is not met."""
    limit: float
    ok: bool


def at_most(name: str, value: float, limit: float) -> Bar:
    """A bar for a value that must not be larger."""
    return Bar(name, value, limit, value <= limit)


def at_least(name: str, value: float, limit: float) -> Bar:
    """A bar for a value that must not be smaller."""
    return Bar(name, value, limit, value >= limit)


def unmeasured(name: str, limit: float) -> Bar:
    """A bar for what could not be measured: it is not met."""
    return Bar(name, None, limit, False)


def emit(bench: str, results: dict[str, Any], bars: list[Bar]) -> int:
    """Print the object; 0 when every bar is met, else 1."""
    print(json.dumps(report(bench, results, bars), indent=2))
    return 0 if all(bar.ok for bar in bars) else 1


def report(bench: str, results: dict[str, Any], bars: list[Bar]) -> dict[str, Any]:
    """The object itself."""
    return {
        "bench": bench,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "results": results,
        "bars": [asdict(bar) for bar in bars],
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else ""
    return {
        "cpu": model or platform.processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
