"""Recorded bandwidth: files of lines "seconds Mbit/s", as the 3G and Oboe traces are."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Final

from laconic.config import read_file
from laconic.device_sim.signals import Recorded
from laconic.errors import ConfigError

_LIMIT_BYTES: Final = 16 << 20
_LIMIT_LINES: Final = 1_000_000
_BYTES_PER_MBIT: Final = 125_000.0


def bandwidth(path: Path) -> Recorded:
    """Bytes a second by the clock; each line's rate holds until the next, the last for the mean interval.

    Raises `ConfigError` that names file, line and value for whatever is not two numbers, times that do not
    rise, rates that are negative or all 0, and a file that is too long.
    """
    raw = read_file(path, "trace", limit_bytes=_LIMIT_BYTES)
    lines = raw.decode("ascii", errors="replace").split("\n", _LIMIT_LINES)
    if len(lines) > _LIMIT_LINES:
        raise ConfigError(f"lines of the trace {path}", value=len(lines), limit=_LIMIT_LINES)
    times: list[float] = []
    rates: list[float] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            t, mbps = (float(field) for field in line.split())
        except ValueError as e:
            raise ConfigError(where, value=line.strip(), limit="two numbers: seconds and Mbit/s") from e
        if not (isfinite(t) and isfinite(mbps) and mbps >= 0):
            raise ConfigError(where, value=line.strip(), limit="finite, and a rate of at least 0")
        if times and t <= times[-1]:
            raise ConfigError(f"{where}: seconds", value=t, limit=f"above {times[-1]}")
        times.append(t)
        rates.append(mbps * _BYTES_PER_MBIT)
    if len(times) < 2 or not any(rates):
        raise ConfigError(f"trace {path}", value=f"{len(times)} lines", limit="two lines, a rate above 0")
    first, last = times[0], times[-1]
    period = last - first + (last - first) / (len(times) - 1)
    return Recorded([t - first for t in times], rates, period)
