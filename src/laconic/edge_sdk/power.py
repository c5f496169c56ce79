"""Models a device's joules and battery from published figures, where nothing can be measured.

Compute: P = P_idle + u (P_max - P_idle); what is reported is the part above idle. Radio: the linear model of
Huang et al., "A Close Examination of Performance and Power Characteristics of 4G LTE Networks" (MobiSys
2012), section 4: E = (alpha_up r_up + alpha_down r_down + beta) t + E_promotion + E_tail. The figures are
those of `laconic.profiles`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, TypeVar

from laconic.edge_sdk.sensors import Origin, Readings
from laconic.errors import ConfigError
from laconic.profiles import Board, LinearRadio, Radio, profiles
from laconic.transport.link import WireBytes

_T = TypeVar("_T")
_BYTES_PER_MBIT: Final = 125_000


@dataclass(frozen=True, slots=True)
class RadioCosts:
    """What a radio's bytes take, each way at the profile's rate, and each burst of them."""

    up_j_per_byte: float
    down_j_per_byte: float
    burst_j: float
    """Promotion before, tail after."""

    def joules(self, up_bytes: int, down_bytes: int, bursts: int) -> float:
        """Energy of transfers in so many bursts."""
        return up_bytes * self.up_j_per_byte + down_bytes * self.down_j_per_byte + bursts * self.burst_j


def radio_costs(radio: Radio) -> RadioCosts:
    """A profile's radio, summed up for a device that knows its bytes and not its radio's states."""
    up, down = radio.up_mbps.value, radio.down_mbps.value
    if isinstance(radio, LinearRadio):
        base = radio.beta_mw.value
        up_mw, down_mw = radio.alpha_up.value * up + base, radio.alpha_down.value * down + base
    else:
        # A card or a link that listens all the time takes that without transfers, too.
        idle_mw = radio.idle.mean_w * 1e3
        up_mw, down_mw = (max(0.0, mw - idle_mw) for mw in (radio.tx_mw.value, radio.rx_mw.value))
    return RadioCosts(
        up_mw * 1e-3 / (up * _BYTES_PER_MBIT),
        down_mw * 1e-3 / (down * _BYTES_PER_MBIT),
        radio.promotion_s.value * radio.promotion_mw.value * 1e-3
        + sum(stage.time_s.value * stage.mean_w for stage in radio.tail),
    )


class RadioMeter:
    """Joules of a radio from the bytes on the wire: a burst for each reading that finds new ones."""

    def __init__(self, radio: RadioCosts, wire: Callable[[], WireBytes]) -> None:
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
    return _profile(profiles().boards, name, "power.board")


def radio_named(name: str) -> Radio:
    """The profile of a radio. Raises `ConfigError` for one that has none."""
    return _profile(profiles().radios, name, "power.radio")


def _profile(known: Mapping[str, _T], name: str, key: str) -> _T:
    if name not in known:
        raise ConfigError(key, value=name, limit=", ".join(known))
    return known[name]


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
        self._board = board_named(board)
        self._radio = RadioMeter(radio_costs(radio_named(radio)), wire)
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
            charge=None
            if battery is None
            else battery.charge(now, compute + radio, self._board.idle_w.value),
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
