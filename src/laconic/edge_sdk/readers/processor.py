"""How busy the processor is, without this process: `/proc/stat`, or the load average where that is closed.

`/proc/stat` counts in units of `sysconf(_SC_CLK_TCK)` (proc(5)); guest time is part of user time there. From
Android 8 on it is closed to programs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from math import exp, isfinite
from pathlib import Path
from typing import Final

from laconic.edge_sdk.readers.files import number, text
from laconic.edge_sdk.readers.sample import Sample

_IDLE: Final = slice(3, 5)
"""Fields `idle` and `iowait`."""
_FIELDS: Final = slice(0, 8)
"""user, nice, system, idle, iowait, irq, softirq, steal."""


class ProcessorLoad:
    """The share of all cores that others take, between two readings."""

    period_s = 5.0

    def __init__(
        self,
        root: Path = Path("/"),
        own_s: Callable[[], float] = time.process_time,
        ticks_per_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`own_s`: processor seconds of this process so far."""
        self._stat, self._average = root / "proc" / "stat", root / "proc" / "loadavg"
        self._own_s = own_s
        self._ticks_per_s = ticks_per_s or float(os.sysconf("SC_CLK_TCK"))
        self._last: tuple[float, float, float] | None = None
        self._clock = clock
        self._minute = (clock(), own_s(), 0.0)

    @property
    def source(self) -> str:
        return f"{self._stat}, else {self._average}; this process left out"

    def read(self) -> Sample:
        now = _ticks(text(self._stat))
        if now is None:
            self._last = None
            load = _load_average(text(self._average))
            own = self._own_of_a_minute()
            cores = os.cpu_count() or 1
            return Sample(
                cpu_load=None if load is None else min(1.0, max(0.0, (load - own) / cores)),
                inferred=("cpu_load",),
            )
        busy, total = now
        own = self._own_s() * self._ticks_per_s
        last, self._last = self._last, (busy, total, own)
        if last is None or total <= last[1]:
            return Sample()
        others = (busy - last[0]) - (own - last[2])
        return Sample(cpu_load=min(1.0, max(0.0, others / (total - last[1]))))

    def _own_of_a_minute(self) -> float:
        """Cores that this process kept busy, averaged as the kernel averages: older seconds count less."""
        then, before, average = self._minute
        now, own = self._clock(), self._own_s()
        if now > then:
            kept = exp(-(now - then) / 60)
            average = average * kept + (own - before) / (now - then) * (1 - kept)
            self._minute = (now, own, average)
        return average


def _ticks(stat: str | None) -> tuple[float, float] | None:
    """Busy and all ticks since boot, of all cores together."""
    words = (stat or "").partition("\n")[0].split()
    if len(words) < 5 or words[0] != "cpu":
        return None
    fields = [number(w) for w in words[1:]][_FIELDS]
    known = [f for f in fields if f is not None]
    if len(known) < len(fields):
        return None
    total = sum(known)
    return (total - sum(known[_IDLE]), total) if isfinite(total) else None


def _load_average(line: str | None) -> float | None:
    """Runnable threads, averaged over the last minute."""
    average = number((line or "").partition(" ")[0])
    return None if average is None or average < 0 else average
