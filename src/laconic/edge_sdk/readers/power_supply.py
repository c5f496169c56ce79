"""Batteries and chargers as Linux shows them: `/sys/class/power_supply`.

Values are in micro-units (kernel, Documentation/ABI/testing/sysfs-class-power). Any file may be missing or
fail. Signs of currents differ by driver (kernel commit 05f94eb98907 documents one and tells of three): only
`status` says which way it flows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from laconic.edge_sdk.readers.current import CurrentScale
from laconic.edge_sdk.readers.files import entries, number_in, text
from laconic.edge_sdk.readers.sample import Sample

_JOULES_PER_UWH: Final = 3.6e-3
_CHARGERS: Final = frozenset({"Mains", "USB", "Wireless", "UPS", "USB_C", "USB_PD", "USB_DCP", "USB_CDP"})
_MOST_PERCENT: Final = 110.0
"""Gauges that are not calibrated say a little more than 100; beyond this the file holds something else."""


@dataclass(frozen=True, slots=True)
class Battery:
    """One battery of the machine."""

    status: str
    charge: float | None
    """0 to 1."""
    weight: float
    """Of its charge among several batteries: what it holds when full."""
    power_w: float | None
    """What flows in or out."""
    stored_joules: float | None


class PowerSupply:
    """Charge, charging, power and energy from the kernel's power supplies."""

    period_s = 2.0

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        """`root`: where `sys` lies; `clock`: seconds."""
        self._folder = root / "sys" / "class" / "power_supply"
        self._clock = clock
        self._scales: dict[str, CurrentScale] = {}

    @property
    def source(self) -> str:
        return str(self._folder)

    def read(self) -> Sample:
        batteries: list[Battery] = []
        online: bool | None = None
        for folder in entries(self._folder):
            kind = text(folder / "type")
            if kind is None or (text(folder / "scope") or "").lower() == "device":
                continue
            if kind == "Battery":
                if number_in(folder / "present") != 0:
                    batteries.append(self._battery(folder))
            elif kind in _CHARGERS and (there := number_in(folder / "online")) is not None:
                online = bool(online) or there > 0
        batteries = [b for b in batteries if b.charge is not None or b.power_w is not None]
        if not batteries:
            return Sample(charging=True) if online else Sample()
        charging = _charging({b.status for b in batteries}, online)
        on_battery = charging is False and not online
        return Sample(
            charge=_charge(batteries),
            charging=charging,
            # With a charger beside it the battery gives only a part of what the device takes.
            power_w=_power(batteries) if on_battery else None,
            stored_joules=_stored(batteries),
        )

    def _battery(self, folder: Path) -> Battery:
        def value(name: str) -> float | None:
            return number_in(folder / name)

        status = text(folder / "status") or "Unknown"
        volts = _positive(value("voltage_now"))
        energy, charge = _least_zero(value("energy_now")), _least_zero(value("charge_now"))
        full_energy = _positive(value("energy_full")) or _positive(value("energy_full_design"))
        full_charge = _positive(value("charge_full")) or _positive(value("charge_full_design"))
        # The voltage falls with the charge, so charge times voltage would lose energy that nobody took.
        nominal = _positive(value("voltage_min_design"))
        stored = energy
        if stored is None and charge is not None and nominal is not None:
            stored = charge * nominal * 1e-6
        weight = full_energy or (full_charge or 0.0) * (nominal or volts or 3.85e6) * 1e-6
        watts = _positive(abs(value("power_now") or 0.0) * 1e-6)
        raw = value("current_now")
        if watts is None and raw and volts is not None:
            scale = self._scales.setdefault(folder.name, CurrentScale())
            if status != "Discharging":
                scale.interrupt()
            elif charge is not None and full_charge is not None:
                scale.observe(self._clock(), raw, charge, full_charge)
            watts = scale.microamperes(raw) * volts * 1e-12
        return Battery(
            status=status,
            charge=_fraction(value("capacity"), energy, full_energy, charge, full_charge),
            weight=weight,
            power_w=watts,
            stored_joules=None if stored is None else stored * _JOULES_PER_UWH,
        )


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _least_zero(value: float | None) -> float | None:
    return value if value is not None and value >= 0 else None


def _fraction(
    percent: float | None,
    energy: float | None,
    full_energy: float | None,
    charge: float | None,
    full_charge: float | None,
) -> float | None:
    """State of charge: as the driver says, or what is there over what there can be."""
    if percent is not None and 0 <= percent <= _MOST_PERCENT:
        return min(1.0, percent / 100)
    if energy is not None and full_energy is not None:
        return min(1.0, energy / full_energy)
    if charge is not None and full_charge is not None:
        return min(1.0, charge / full_charge)
    return None


def _charge(batteries: list[Battery]) -> float | None:
    """Of all batteries together, each by what it holds; by their number where that is not known of all."""
    known = [(b.charge, b.weight) for b in batteries if b.charge is not None]
    if not known:
        return None
    if any(weight <= 0 for _, weight in known):
        known = [(charge, 1.0) for charge, _ in known]
    most = max(weight for _, weight in known)
    total = sum(weight / most for _, weight in known)
    return min(1.0, sum(charge * (weight / most) for charge, weight in known) / total)


def _charging(statuses: set[str], online: bool | None) -> bool | None:
    """Whether the device lives on power from outside. Discharging beside a charger that is too weak: no."""
    if "Charging" in statuses:
        return True
    if "Discharging" in statuses:
        return False
    if online is not None:
        return online
    return None if statuses == {"Unknown"} else "Full" in statuses


def _power(batteries: list[Battery]) -> float | None:
    """What the batteries give together; None if one that gives does not say how much."""
    giving = [b for b in batteries if b.status == "Discharging"] or batteries
    watts = [b.power_w for b in giving if b.power_w is not None]
    return sum(watts) if watts and len(watts) == len(giving) else None


def _stored(batteries: list[Battery]) -> float | None:
    joules = [b.stored_joules for b in batteries if b.stored_joules is not None]
    return sum(joules) if joules and len(joules) == len(batteries) else None
