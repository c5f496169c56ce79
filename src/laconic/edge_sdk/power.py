"""Models a device's joules and battery from published figures, where nothing can be measured.

Compute: P = P_idle + u (P_max - P_idle); what is reported is the part above idle. Radio: the linear model of
Huang et al., "A Close Examination of Performance and Power Characteristics of 4G LTE Networks" (MobiSys
2012), section 4: E = (alpha_up r_up + alpha_down r_down + beta) t + E_promotion + E_tail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Final

from laconic.edge_sdk.sensors import Origin, Readings
from laconic.errors import ConfigError
from laconic.transport.link import WireBytes


@dataclass(frozen=True, slots=True)
class Board:
    """A board's power, watts. `cores`: how many share the step from idle to full load."""

    idle_w: float
    load_w: float
    cores: int
    source: str

    @property
    def core_w(self) -> float:
        """Watts above idle while one core works."""
        return (self.load_w - self.idle_w) / self.cores


@dataclass(frozen=True, slots=True)
class Radio:
    """A radio's power: milliwatts per Mbit/s each way, a base while it is on, and joules for each burst."""

    alpha_up: float
    alpha_down: float
    beta_mw: float
    burst_joules: float
    rate_mbps: float
    """The rate at which transfers are taken to run: it sets how long the base power lasts."""
    source: str

    def joules(self, up_bytes: int, down_bytes: int, bursts: int) -> float:
        """Energy of transfers in so many bursts (promotion before, tail after)."""
        up_mbit, down_mbit = up_bytes * 8e-6, down_bytes * 8e-6
        seconds = (up_mbit + down_mbit) / self.rate_mbps
        millijoules = self.alpha_up * up_mbit + self.alpha_down * down_mbit + self.beta_mw * seconds
        return millijoules * 1e-3 + bursts * self.burst_joules


def _radio_of_states(
    up_mw: float, up_mbps: float, down_mw: float, down_mbps: float, tail_s: float, source: str
) -> Radio:
    """A radio of which the power in each state is known; its tail is taken to cost what receiving costs."""
    return Radio(up_mw / up_mbps, down_mw / down_mbps, 0.0, tail_s * down_mw * 1e-3, up_mbps, source)


_HPL: Final = "HPL on all cores, github.com/geerlingguy/top500-benchmark"
_DRAMBLE: Final = "Pi Dramble power consumption benchmarks (pidramble.com)"
_IDLE_PHONE: Final = "0.1 W with the screen off, as open simulators of federated learning have it"

BOARDS: Final[Mapping[str, Board]] = MappingProxyType(
    {
        "rpi_3b_plus": Board(1.9, 5.1, 4, _DRAMBLE),
        "rpi_4b": Board(2.7, 6.4, 4, _DRAMBLE),
        "rpi_5": Board(3.2, 12.7, 4, f"idle 0.65 A at 5 V, github.com/iiab/iiab issue 4050; load: {_HPL}"),
        "rpi_zero2w": Board(0.6, 2.1, 4, "CNX Software's review; HPL under full load"),
        # Two cores on, nvpmodel's 5 W mode: 5th percentile and median of the log.
        "jetson_nano_5w": Board(2.15, 3.16, 2, "POM_5V_IN, github.com/umr-ds/jetson-power"),
        # All cores together at 3.85 V, from the makers' power_profile.xml.
        "phone_low": Board(0.1, 3.24, 8, f"Galaxy J8: 100Daisy/device_samsung_j8y18lte; {_IDLE_PHONE}"),
        "phone_mid": Board(0.1, 4.55, 8, f"POCO X3 NFC: AOSPK-Devices/device_xiaomi_surya; {_IDLE_PHONE}"),
        "phone_high": Board(0.1, 4.43, 8, f"OnePlus 8: AICP/device_oneplus_instantnoodle; {_IDLE_PHONE}"),
    }
)
RADIOS: Final[Mapping[str, Radio]] = MappingProxyType(
    {
        # Promotion 0.0791 s at 124.4 mW, tail 0.2381 s at 119.3 mW.
        "wifi_2012": Radio(283.17, 137.01, 132.86, 0.0383, 10.0, "Huang et al. 2012, tables 3 and 4"),
        "wifi_phone_2020": _radio_of_states(
            703.0,
            20.0,
            562.0,
            50.0,
            0.25,
            "OnePlus 8's power_profile.xml at 3.7 V; 20 Mbit/s up, 50 down; tail 0.25 s, AT&T ARO",
        ),
        # Promotion 0.2601 s at 1210.7 mW, tail 11.576 s at 1060.0 mW.
        "lte_2012": Radio(438.39, 51.97, 1288.04, 12.59, 5.0, "Huang et al. 2012, tables 3 and 4"),
        # Tail 10.5 s at 178 mW. No base of the radio alone was published: that of 2012, an upper bound.
        "lte_2021": Radio(
            80.21, 15.0, 1288.04, 1.87, 34.0, "Narayanan et al., SIGCOMM 2021; base of Huang et al. 2012"
        ),
        # The link takes 0.19 W whether bytes pass or not; no measured energy for each byte was found.
        "ethernet": Radio(0.0, 0.0, 0.0, 0.0, 100.0, "F. Guerraz, power consumption of a Raspberry Pi 3B"),
    }
)


class RadioMeter:
    """Joules of a radio from the bytes on the wire: a burst for each reading that finds new ones."""

    def __init__(self, radio: Radio, wire: Callable[[], WireBytes]) -> None:
        self._radio, self._wire = radio, wire
        self._last = (0, 0)
        self._bursts = 0

    def read(self) -> tuple[WireBytes, float]:
        """The bytes so far, and the joules that they took."""
        wire = self._wire()
        if (wire.up, wire.down) != self._last:
            self._last = (wire.up, wire.down)
            self._bursts += 1
        return wire, self._radio.joules(wire.up, wire.down, self._bursts)


def board_named(name: str) -> Board:
    """The profile of a board. Raises `ConfigError` for one that has none."""
    if name not in BOARDS:
        raise ConfigError("power.board", value=name, limit=", ".join(BOARDS))
    return BOARDS[name]


def radio_named(name: str) -> Radio:
    """The profile of a radio. Raises `ConfigError` for one that has none."""
    if name not in RADIOS:
        raise ConfigError("power.radio", value=name, limit=", ".join(RADIOS))
    return RADIOS[name]


class ModelledBattery:
    """A battery that nobody measures: what has been spent is taken from it."""

    def __init__(self, battery_wh: float, charge: float = 1.0) -> None:
        """Raises `ConfigError` for a capacity that is none, or a charge outside 0 to 1."""
        if not 0.0 <= charge <= 1.0:
            raise ConfigError("power.charge", value=charge, limit="0 to 1")
        if not 0.0 < battery_wh < inf:
            raise ConfigError("power.battery_wh", value=battery_wh, limit="above 0")
        self._joules, self._charge = battery_wh * 3600, charge
        self._began: float | None = None

    def charge(self, now: float, spent_joules: float, idle_w: float) -> float:
        """State of charge, 0 to 1, after `spent_joules` beside what the device takes when idle."""
        self._began = now if self._began is None else self._began
        idle = max(0.0, now - self._began) * idle_w
        return min(1.0, max(0.0, self._charge - (spent_joules + idle) / self._joules))


def origin_of(wire: WireBytes) -> Origin:
    """Whether the kernel has counted these bytes."""
    return Origin.MEASURED if wire.measured else Origin.MODELLED


class ModelledPower:
    """Sensors of a device that has none: joules from its profile, a battery that they drain."""

    def __init__(
        self,
        board: str,
        radio: str,
        wire: Callable[[], WireBytes],
        *,
        battery_wh: float | None = None,
        charge: float = 1.0,
        slowdown: float = 1.0,
        metered: bool = False,
    ) -> None:
        """`slowdown`: how many times longer the board would compute than this machine does.

        Raises `ConfigError` for a board or radio that has no profile, or a charge outside 0 to 1.
        """
        if not 0.0 <= charge <= 1.0:
            raise ConfigError("power.charge", value=charge, limit="0 to 1")
        if not 0.0 < slowdown < inf:
            raise ConfigError("power.slowdown", value=slowdown, limit="above 0")
        self._board, self._radio = board_named(board), RadioMeter(radio_named(radio), wire)
        self._battery = None if battery_wh is None else ModelledBattery(battery_wh, charge)
        self._slowdown, self._metered = slowdown, metered
        self._compute_s = 0.0

    def worked(self, seconds: float) -> None:
        self._compute_s += seconds * self._slowdown

    def read(self, now: float) -> Readings:
        wire, radio = self._radio.read()
        compute = self._compute_s * self._board.core_w
        battery = self._battery
        return Readings(
            charge=None if battery is None else battery.charge(now, compute + radio, self._board.idle_w),
            metered=self._metered,
            bytes_up=wire.up,
            bytes_down=wire.down,
            joules_compute=compute,
            joules_radio=radio,
            charge_origin=Origin.UNKNOWN if battery is None else Origin.MODELLED,
            metered_origin=Origin.MODELLED,
            bytes_origin=origin_of(wire),
            compute_origin=Origin.MODELLED,
            radio_origin=Origin.MODELLED,
        )


class WireOnly:
    """Sensors of a device on mains power: only its bytes are known."""

    def __init__(self, wire: Callable[[], WireBytes], *, metered: bool = False) -> None:
        self._wire, self._metered = wire, metered

    def worked(self, seconds: float) -> None:
        """Nothing is known of the energy."""

    def read(self, now: float) -> Readings:
        wire = self._wire()
        return Readings(
            charging=True,
            metered=self._metered,
            bytes_up=wire.up,
            bytes_down=wire.down,
            charge_origin=Origin.MODELLED,
            metered_origin=Origin.MODELLED,
            bytes_origin=origin_of(wire),
        )
