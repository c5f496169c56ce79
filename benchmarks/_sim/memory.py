"""How much memory a process has had at its peak."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> float:
    """Of this process alone: on Linux `ru_maxrss` begins with the peak of the one that started it."""
    if _STATUS.exists():
        told = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return 1024.0 * int(told["VmHWM"].split()[0])
    scale = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)
