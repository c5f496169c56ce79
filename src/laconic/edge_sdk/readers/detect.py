"""Finds out which readers this machine has, and whether its board has a profile."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from laconic.edge_sdk.readers.files import text
from laconic.edge_sdk.readers.ina3221 import PowerMonitor
from laconic.edge_sdk.readers.network_manager import NetworkManager
from laconic.edge_sdk.readers.power_supply import PowerSupply
from laconic.edge_sdk.readers.processor import ProcessorLoad
from laconic.edge_sdk.readers.psutil_battery import PsutilBattery
from laconic.edge_sdk.readers.raspberry_pi import PowerChip, Temperature, Throttled, VoltageAlarm
from laconic.edge_sdk.readers.sample import Reader
from laconic.edge_sdk.readers.termux import NOMINAL_V, BatteryStatus, Connection
from laconic.edge_sdk.readers.thermal import Thermal

Which = Callable[[str], str | None]
"""Where a program is; None if it is not there (`shutil.which`)."""

# As the device tree calls them (raspberrypi/linux, arch/arm*/boot/dts/broadcom).
_MODELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Raspberry Pi 5 Model B": "rpi_5",
        "Raspberry Pi 4 Model B": "rpi_4b",
        "Raspberry Pi 3 Model B Plus": "rpi_3b_plus",
        "Raspberry Pi Zero 2 W": "rpi_zero2w",
    }
)


def detect(
    root: Path = Path("/"), which: Which = shutil.which, battery_wh: float | None = None
) -> list[Reader]:
    """Readers that have something to read here, the most direct first.

    `root`: where `sys` and `proc` lie. `battery_wh`: what a full battery holds, if that is known. Runs no
    command: it looks only whether they are there.
    """
    found: list[Reader] = []
    if (monitor := PowerMonitor(root)).read().tells:
        found.append(monitor)
    firmware = which("vcgencmd") is not None
    if firmware:
        found.append(PowerChip())
    if (root / "sys" / "class" / "power_supply").is_dir():
        # Even if it is empty now: a battery may be plugged in.
        found.append(PowerSupply(root))
    if which("termux-battery-status") is not None:
        full_uah = None if battery_wh is None else battery_wh / NOMINAL_V * 1e6
        found += [BatteryStatus(full_uah=full_uah), Connection()]
    elif any(which(program) is not None for program in ("busctl", "gdbus", "nmcli")):
        found.append(NetworkManager())
    if firmware:
        found.append(Throttled())
    elif (alarm := VoltageAlarm(root)).read().tells:
        found.append(alarm)
    if (thermal := Thermal(root)).read().tells:
        found.append(thermal)
    elif firmware:
        found.append(Temperature())
    if (root / "proc").is_dir():
        found.append(ProcessorLoad(root))
    if not any(isinstance(r, (PowerSupply, BatteryStatus)) for r in found):
        found.append(PsutilBattery())
    return found


def board_here(root: Path = Path("/")) -> str | None:
    """The profile of this board, by what its device tree calls it; None for one that has none."""
    for path in (root / "proc" / "device-tree" / "model", root / "sys/firmware/devicetree/base/model"):
        model = text(path)
        if model is not None:
            return next((board for name, board in _MODELS.items() if model.startswith(name)), None)
    return None
