"""A battery HAT whose meter is an INA219 on I2C: named in the configuration, never looked for.

Registers, 16 bits, high byte first (Texas Instruments, INA219 data sheet SBOS448, section 8.6): shunt voltage
01h, signed, 10 uV a step; bus voltage 02h, bits 15 to 3, 4 mV a step, bit 0 says that the arithmetic has
overflowed. The current is the shunt's voltage over its resistance, by Ohm; so the chip's own registers for
current and power, and the calibration that they need, are left to whoever else uses the chip, and nothing is
written to it. Asking on a bus that is not the HAT's could disturb another chip: hence "never looked for".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

from laconic.edge_sdk.readers.sample import Sample
from laconic.errors import ConfigError

SHUNT: Final = 0x01
BUS: Final = 0x02
_SHUNT_V: Final = 10e-6
_BUS_V: Final = 4e-3
_OVERFLOW: Final = 0x0001
_EMPTY_CELL_V: Final = 3.0
_FULL_CELL_V: Final = 4.2
"""Between these the makers' own programs take a lithium cell's charge to rise evenly with its voltage."""
_IDLE_A: Final = 0.01
"""A full battery on its charger gives and takes less than this."""

ReadWord = Callable[[int], int]
"""Takes a register; gives its 16 bits. Raises `OSError` when the chip does not answer."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the configuration must say of the HAT."""

    bus: int = 1
    address: int = 0x42
    shunt_ohm: float = 0.1
    cells: int = 2
    """In series."""
    discharging: Literal["positive", "negative"] = "negative"
    """The sign of the current while the battery gives: how the shunt is wired."""


class Ina219:
    """Charge by voltage, charging by the current's sign, and what the battery gives while it gives."""

    period_s = 2.0

    def __init__(self, options: Options, read_word: ReadWord) -> None:
        self._options, self._read_word = options, read_word

    @property
    def source(self) -> str:
        return f"INA219 at {self._options.address:#04x} on I2C bus {self._options.bus}"

    def read(self) -> Sample:
        try:
            shunt, bus = self._read_word(SHUNT), self._read_word(BUS)
        except OSError:
            return Sample()
        return told(shunt, bus, self._options)


def told(shunt: int, bus: int, options: Options) -> Sample:
    """What the two registers mean, each 0 to 65,535."""
    volts, amperes = bus_volts(bus), shunt_volts(shunt) / options.shunt_ohm
    cell = volts / options.cells
    if cell < 1.0:
        # A lithium cell that gives anything has more than 2.5 V: there is none.
        return Sample()
    charge = (cell - _EMPTY_CELL_V) / (_FULL_CELL_V - _EMPTY_CELL_V)
    if bus & _OVERFLOW:
        return Sample(charge=min(1.0, max(0.0, charge)), inferred=("charge",))
    giving = amperes if options.discharging == "positive" else -amperes
    return Sample(
        charge=min(1.0, max(0.0, charge)),
        charging=giving < _IDLE_A,
        power_w=volts * giving if giving >= _IDLE_A else None,
        inferred=("charge",),
    )


def shunt_volts(register: int) -> float:
    """Volts over the shunt: two's complement, 10 uV a step."""
    return ((register & 0x7FFF) - (register & 0x8000)) * _SHUNT_V


def bus_volts(register: int) -> float:
    """Volts of the battery: the upper 13 bits, 4 mV a step."""
    return (register >> 3 & 0x1FFF) * _BUS_V


def make(options: Mapping[str, object]) -> Ina219:
    """The reader that the configuration asks for.

    Raises `ConfigError` for options that are none, without smbus2, or for a bus that cannot be opened.
    """
    try:
        o = msgspec.convert(dict(options), Options)
    except msgspec.ValidationError as e:
        raise ConfigError(f"options of the reader ina219 ({e})", value=dict(options)) from e
    if not (
        0x40 <= o.address <= 0x4F and 0.0001 <= o.shunt_ohm <= 10 and 1 <= o.cells <= 6 and 0 <= o.bus < 256
    ):
        raise ConfigError(
            "options of the reader ina219",
            value=dict(options),
            limit="address 0x40 to 0x4f, shunt_ohm 0.0001 to 10, cells 1 to 6, bus 0 to 255",
        )
    try:
        from smbus2 import SMBus
    except ImportError as e:
        raise ConfigError(
            "the reader ina219 needs smbus2", remedy="install laconic with the extra i2c"
        ) from e
    try:
        bus = SMBus(o.bus)
    except OSError as e:
        raise ConfigError(
            f"cannot open the I2C bus {o.bus} ({e.strerror})", remedy="enable I2C, check bus and permissions"
        ) from e

    def read_word(register: int) -> int:
        high, low = bus.read_i2c_block_data(o.address, register, 2)
        return int(high) << 8 | int(low)

    return Ina219(o, read_word)
