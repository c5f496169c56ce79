"""Models a device's joules and battery from published figures, where nothing can be measured.

Compute: P = P_idle + u (P_max - P_idle); what is reported is the part above idle. Radio: the linear model of
Huang et al., "A Close Examination of Performance and Power Characteristics of 4G LTE Networks" (MobiSys
2012), section 4: E = (alpha_up r_up + alpha_down r_down + beta) t + E_promotion + E_tail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from laconic.edge_sdk.sensors import Readings
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


BOARDS: Final[Mapping[str, Board]] = MappingProxyType(
    {
        "rpi_4b": Board(2.7, 6.4, 4, "Pi Dramble power consumption benchmarks (pidramble.com)"),
        "rpi_zero2w": Board(0.6, 2.1, 4, "CNX Software's review; HPL under full load"),
    }
)
RADIOS: Final[Mapping[str, Radio]] = MappingProxyType(
    {
        # Promotion 0.0791 s at 124.4 mW, tail 0.2381 s at 119.3 mW.
        "wifi_2012": Radio(283.17, 137.01, 132.86, 0.0383, 10.0, "Huang et al. 2012, tables 3 and 4"),
    }
)


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
        if board not in BOARDS:
            raise ConfigError("power.board", value=board, limit=", ".join(BOARDS))
        if radio not in RADIOS:
            raise ConfigError("power.radio", value=radio, limit=", ".join(RADIOS))
        if not 0.0 <= charge <= 1.0:
            raise ConfigError("power.charge", value=charge, limit="0 to 1")
        if slowdown <= 0 or (battery_wh is not None and battery_wh <= 0):
            raise ConfigError("power.slowdown, battery_wh", value=(slowdown, battery_wh), limit="above 0")
        self._board, self._radio, self._wire = BOARDS[board], RADIOS[radio], wire
        self._battery_joules = None if battery_wh is None else battery_wh * 3600
        self._charge, self._slowdown, self._metered = charge, slowdown, metered
        self._compute_s = 0.0
        self._bursts = 0
        self._last: tuple[int, int] = (0, 0)
        self._began: float | None = None

    def worked(self, seconds: float) -> None:
        self._compute_s += seconds * self._slowdown

    def read(self, now: float) -> Readings:
        self._began = now if self._began is None else self._began
        wire = self._wire()
        if (wire.up, wire.down) != self._last:
            self._last = (wire.up, wire.down)
            self._bursts += 1
        compute = self._compute_s * self._board.core_w
        radio = self._radio.joules(wire.up, wire.down, self._bursts)
        charge = None
        if self._battery_joules is not None:
            idle = (now - self._began) * self._board.idle_w
            charge = max(0.0, self._charge - (compute + radio + idle) / self._battery_joules)
        return Readings(
            charge=charge,
            metered=self._metered,
            bytes_up=wire.up,
            bytes_down=wire.down,
            joules_compute=compute,
            joules_radio=radio,
        )


class WireOnly:
    """Sensors of a device on mains power: only its bytes are known."""

    def __init__(self, wire: Callable[[], WireBytes], *, metered: bool = False) -> None:
        self._wire, self._metered = wire, metered

    def worked(self, seconds: float) -> None:
        """Nothing is known of the energy."""

    def read(self, now: float) -> Readings:
        wire = self._wire()
        return Readings(charging=True, metered=self._metered, bytes_up=wire.up, bytes_down=wire.down)
