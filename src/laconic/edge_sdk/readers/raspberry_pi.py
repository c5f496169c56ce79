"""A Raspberry Pi's own view of its supply: `vcgencmd`, and the kernel's alarm where that is not installed.

Bits of `get_throttled`: Raspberry Pi documentation, "vcgencmd". `pmic_read_adc` exists on the Pi 5 alone: its
power chip measures twelve rails. What hangs on the 5 V input directly is in none of them (USB, HATs, the
converters' losses), so their sum is less than what the board takes; one comparison with a USB meter found
1.13 times the sum and 0.64 W (github.com/jfikar/RPi5-power). What is told here is the sum.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from laconic.edge_sdk.readers import command
from laconic.edge_sdk.readers.command import Run
from laconic.edge_sdk.readers.files import entries, number, number_in, text
from laconic.edge_sdk.readers.sample import Sample

NOW: Final = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_BOOT: Final = 16
"""Bits 16 to 19: the same, at some time since the machine began."""
_ADC: Final = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.eE+\-]+)[AV]\s*$", re.MULTILINE)


class Throttled:
    """Whether the firmware holds the clock back: `vcgencmd get_throttled`."""

    period_s = 10.0
    source = "vcgencmd get_throttled"

    def __init__(self, run: Run = command.run) -> None:
        self._run = run

    def read(self) -> Sample:
        return throttled(self._run(("vcgencmd", "get_throttled")))


class Temperature:
    """The processor's temperature: `vcgencmd measure_temp`."""

    period_s = 10.0
    source = "vcgencmd measure_temp"

    def __init__(self, run: Run = command.run) -> None:
        self._run = run

    def read(self) -> Sample:
        return temperature(self._run(("vcgencmd", "measure_temp")))


class PowerChip:
    """The sum over the rails of a Pi 5: `vcgencmd pmic_read_adc`."""

    period_s = 2.0
    source = "vcgencmd pmic_read_adc (the sum of its rails: without USB, HATs and losses)"

    def __init__(self, run: Run = command.run) -> None:
        self._run = run

    def read(self) -> Sample:
        return rails(self._run(("vcgencmd", "pmic_read_adc")))


class VoltageAlarm:
    """Under-voltage as the kernel's `rpi_volt` tells it (drivers/hwmon/raspberrypi-hwmon.c)."""

    period_s = 10.0

    def __init__(self, root: Path = Path("/")) -> None:
        self._folder = root / "sys" / "class" / "hwmon"

    @property
    def source(self) -> str:
        return f"{self._folder}/*/in0_lcrit_alarm of rpi_volt"

    def read(self) -> Sample:
        for folder in entries(self._folder):
            if text(folder / "name") == "rpi_volt":
                alarm = number_in(folder / "in0_lcrit_alarm")
                return Sample(throttled=None if alarm is None else alarm > 0)
        return Sample()


def throttled(output: str | None) -> Sample:
    """What `throttled=0x50005` means."""
    found = re.search(r"throttled=(0x[0-9a-fA-F]{1,8})\b", output or "")
    if not found:
        return Sample()
    bits = int(found[1], 16)
    notes = [name for bit, name in NOW.items() if bits >> bit & 1]
    notes += [f"{name} since boot" for bit, name in NOW.items() if bits >> bit + _SINCE_BOOT & 1]
    return Sample(throttled=bits & 0b1111 != 0, notes=tuple(notes))


def temperature(output: str | None) -> Sample:
    """What `temp=39.5'C` means."""
    found = re.search(r"temp=(-?[0-9.]+)'C", output or "")
    return Sample(temperature_c=number(found[1]) if found else None)


def rails(output: str | None) -> Sample:
    """The sum of volts times amperes over all rails that tell both, watts.

    `EXT5V` and `BATT` tell a voltage alone: nothing measures the current that comes in.
    """
    volts: dict[str, float] = {}
    amperes: dict[str, float] = {}
    for rail, unit, value in _ADC.findall(output or ""):
        if (known := number(value)) is not None and known >= 0:
            (amperes if unit == "A" else volts)[rail] = known
    both = volts.keys() & amperes.keys()
    notes = (f"{volts['EXT5V']:.2f} V at the input",) if 0 < volts.get("EXT5V", 0) < 30 else ()
    return Sample(power_w=sum(volts[r] * amperes[r] for r in sorted(both)) if both else None, notes=notes)
