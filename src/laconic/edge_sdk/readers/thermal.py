"""The processor's temperature: `/sys/class/thermal`, or hwmon where there are no zones.

Both tell thousandths of a degree Celsius (Documentation/ABI/testing/sysfs-class-thermal, sysfs-class-hwmon).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from laconic.edge_sdk.readers.files import entries, number_in, text
from laconic.edge_sdk.readers.sample import Sample

_PROCESSOR: Final = re.compile(r"cpu|soc|pkg|core|k10temp|zenpower|bigcore|littlecore", re.IGNORECASE)
_COLDEST_C: Final = -40.0
_HOTTEST_C: Final = 125.0
"""Zones without a sensor behind them say -273 or the like, or stand at a limit."""


class Thermal:
    """The hottest zone of the processor; without one that bears its name, the hottest there is."""

    period_s = 10.0

    def __init__(self, root: Path = Path("/")) -> None:
        self._zones, self._chips = root / "sys" / "class" / "thermal", root / "sys" / "class" / "hwmon"

    @property
    def source(self) -> str:
        return f"{self._zones}/thermal_zone*, else {self._chips}"

    def read(self) -> Sample:
        told = [
            (text(zone / "type") or "", number_in(zone / "temp"))
            for zone in entries(self._zones, "thermal_zone*")
        ]
        if not any(_processor(name) for name, _ in told):
            told += [
                (text(chip / "name") or "", number_in(chip / "temp1_input")) for chip in entries(self._chips)
            ]
        known = [(name, t / 1000) for name, t in told if t is not None and _COLDEST_C < t / 1000 < _HOTTEST_C]
        hot = [t for name, t in known if _processor(name)] or [t for _, t in known]
        return Sample(temperature_c=max(hot, default=None))


def _processor(name: str) -> bool:
    return _PROCESSOR.search(name) is not None
