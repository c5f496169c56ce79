"""The battery as psutil finds it on systems other than Linux: `psutil.sensors_battery()`. An extra."""

from __future__ import annotations

from typing import Any

from laconic.edge_sdk.readers.files import number
from laconic.edge_sdk.readers.sample import Sample


class PsutilBattery:
    """Charge and charging from psutil; nothing where it is not installed."""

    period_s = 30.0
    source = "psutil.sensors_battery()"

    def __init__(self) -> None:
        self._psutil: Any = None
        try:
            import psutil
        except ImportError:
            return
        self._psutil = psutil

    def read(self) -> Sample:
        # Not every system has the function; some raise for a file in /sys that vanished.
        ask = getattr(self._psutil, "sensors_battery", None)
        if ask is None:
            return Sample()
        try:
            return told(ask())
        except (OSError, RuntimeError, ValueError, NotImplementedError):
            return Sample()


def told(battery: Any) -> Sample:
    """What psutil's answer says: `percent`, `power_plugged` or None; it is None without a battery."""
    percent, plugged = getattr(battery, "percent", None), getattr(battery, "power_plugged", None)
    percent = number(str(percent)) if percent is not None else None
    if percent is None or not 0 <= percent <= 100:
        return Sample()
    return Sample(charge=percent / 100, charging=plugged if isinstance(plugged, bool) else None)
