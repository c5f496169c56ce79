"""The power monitors of a Jetson: INA3221 chips by the kernel's hwmon, or by NVIDIA's older iio driver.

hwmon (kernel, Documentation/hwmon/ina3221.rst): `in1_label`, `in1_input` in mV, `curr1_input` in mA; channel
7 is a sum of shunt voltages, no rail. iio, up to JetPack 4: `rail_name_0`, `in_power0_input` in mW.

Where there is a rail for the whole module (VDD_IN; POM_5V_IN on the Nano) it is the total, and the others are
parts of it. The AGX boards have none: their rails stand beside each other, and the sum is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Final

from laconic.edge_sdk.readers.files import entries, number_in, text
from laconic.edge_sdk.readers.sample import Sample

TOTALS: Final = ("VDD_IN", "POM_5V_IN", "5V_IN")
_ABSENT: Final = frozenset({"", "NC", "N/A", "nc"})


class PowerMonitor:
    """Power of the module from its INA3221."""

    period_s = 2.0

    def __init__(self, root: Path = Path("/")) -> None:
        self._sys = root / "sys"
        self._rails: frozenset[str] = frozenset()

    @property
    def source(self) -> str:
        return f"INA3221 in {self._sys}/class/hwmon or bus/i2c/drivers/ina3221x"

    def read(self) -> Sample:
        rails: dict[str, float] = {}
        for name, watts in (*self._hwmon(), *self._iio()):
            rails.setdefault(name, watts)
        if not self._rails <= rails.keys():
            # A rail that has failed this time would make the sum too small, or a part pass for the total.
            return Sample()
        self._rails = frozenset(rails)
        total = next((rails[name] for name in TOTALS if name in rails), None)
        if total is not None:
            return Sample(power_w=total)
        if not rails:
            return Sample()
        return Sample(power_w=sum(rails.values()), notes=(f"the sum of {', '.join(sorted(rails))}",))

    def _hwmon(self) -> Iterator[tuple[str, float]]:
        for folder in entries(self._sys / "class" / "hwmon"):
            if text(folder / "name") != "ina3221":
                continue
            for channel in (1, 2, 3):
                label = text(folder / f"in{channel}_label")
                millivolts = number_in(folder / f"in{channel}_input")
                milliamperes = number_in(folder / f"curr{channel}_input")
                if label is not None and millivolts is not None and milliamperes is not None:
                    yield from _rail(label, millivolts * milliamperes * 1e-6)

    def _iio(self) -> Iterator[tuple[str, float]]:
        for folder in entries(self._sys / "bus" / "i2c" / "drivers" / "ina3221x", "*/iio:device*"):
            for channel in (0, 1, 2):
                label = text(folder / f"rail_name_{channel}")
                milliwatts = number_in(folder / f"in_power{channel}_input")
                if label is not None and milliwatts is not None:
                    yield from _rail(label, milliwatts * 1e-3)


def _rail(label: str, watts: float) -> Iterator[tuple[str, float]]:
    if label not in _ABSENT and isfinite(watts) and watts >= 0:
        yield label, watts
