"""Battery and network of an Android phone through Termux:API.

`termux-battery-status` prints JSON (termux-api, BatteryStatusAPI.java): `percentage` 0 to 100, `plugged`,
`status`, `temperature` in degrees Celsius; newer ones `voltage` in mV and `charge_counter` in microampere
hours. `current` is microamperes by Android's book and milliamperes on many phones, with either sign.
Each call starts an application process, so it is asked seldom and its own draw stands in `current`; where
there is a charge counter, energy comes from that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Final

from laconic.edge_sdk.readers import command
from laconic.edge_sdk.readers.command import Run
from laconic.edge_sdk.readers.current import CurrentScale
from laconic.edge_sdk.readers.sample import Sample

NOMINAL_V: Final = 3.85
"""Of a phone's lithium cell over its discharge."""
_JOULES_PER_UAH: Final = NOMINAL_V * 3600e-6
_LEAST_FULL_UAH: Final = 500_000.0
"""No phone's battery holds less: what looks smaller was told in milliampere hours."""
_TIMEOUT_S: Final = 10.0


class BatteryStatus:
    """Charge, charging, temperature, and energy or power from `termux-battery-status`."""

    period_s = 60.0
    source = "termux-battery-status"

    def __init__(
        self,
        run: Run | None = None,
        clock: Callable[[], float] = time.monotonic,
        full_uah: float | None = None,
    ) -> None:
        """`full_uah`: what the battery holds; with it the current's scale is learnt on older Termux too."""
        self._run = run or (lambda c: command.run(c, _TIMEOUT_S))
        self._clock, self._full_uah = clock, full_uah
        self._scale = CurrentScale()

    def read(self) -> Sample:
        told = _object(self._run(("termux-battery-status",)))
        percent = _number(told, "percentage")
        charge = percent / 100 if percent is not None and 0 <= percent <= 100 else None
        charging = _charging(told.get("plugged"), told.get("status"))
        counter = _counter(told, charge)
        watts = None
        if charging is False:
            watts = self._watts(told, charge) if counter is None else None
        else:
            self._scale.interrupt()
        return Sample(
            charge=charge,
            charging=charging,
            power_w=watts,
            stored_joules=None if counter is None else counter * _JOULES_PER_UAH,
            temperature_c=_number(told, "temperature"),
        )

    def _watts(self, told: Mapping[str, object], charge: float | None) -> float | None:
        raw = _number(told, "current_average") or _number(told, "current")
        if not raw:
            return None
        if charge is not None and self._full_uah is not None:
            self._scale.observe(self._clock(), raw, charge * self._full_uah, self._full_uah)
        millivolts = _number(told, "voltage")
        plausible = millivolts is not None and 2_500 < millivolts < 25_000
        volts = millivolts * 1e-3 if plausible and millivolts is not None else NOMINAL_V
        return self._scale.microamperes(raw) * 1e-6 * volts


class Connection:
    """Whether the way out is Wi-Fi or the mobile network: nearest that Termux tells to whether it is metered.

    Android knows more (a hotspot is Wi-Fi and may be metered), and does not tell Termux; so the answer is
    marked as inferred.
    """

    period_s = 60.0
    source = "termux-wifi-connectioninfo, termux-telephony-deviceinfo"

    def __init__(self, run: Run | None = None) -> None:
        self._run = run or (lambda c: command.run(c, _TIMEOUT_S))

    def read(self) -> Sample:
        wifi = _object(self._run(("termux-wifi-connectioninfo",)))
        if wifi.get("supplicant_state") == "COMPLETED" and wifi.get("ip") not in (None, "", "0.0.0.0"):
            return Sample(metered=False, inferred=("metered",), notes=("on Wi-Fi",))
        phone = _object(self._run(("termux-telephony-deviceinfo",)))
        if str(phone.get("data_state")).lower() == "connected":
            return Sample(metered=True, inferred=("metered",), notes=("on the mobile network",))
        return Sample()


def _object(output: str | None) -> Mapping[str, object]:
    try:
        told = json.loads(output or "null")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _number(told: Mapping[str, object], key: str) -> float | None:
    value = told.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None


def _charging(plugged: object, status: object) -> bool | None:
    if status in ("CHARGING", "FULL") and plugged != "UNPLUGGED":
        return True
    if status == "DISCHARGING" or plugged == "UNPLUGGED":
        return False
    if isinstance(plugged, str) and plugged.startswith("PLUGGED_") and plugged != "PLUGGED_-1":
        return True
    return None


def _counter(told: Mapping[str, object], charge: float | None) -> float | None:
    """What the charge counter says, microampere hours; None where it cannot be a charge."""
    counter = _number(told, "charge_counter")
    if counter is None or counter <= 0 or not charge:
        return None
    return counter * 1000 if counter / charge < _LEAST_FULL_UAH else counter
