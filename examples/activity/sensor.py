"""Windows from an MPU-6050 on I2C: six axes at 50 Hz, 128 samples long, half of them new each time.

Registers and scales: InvenSense, MPU-6000/MPU-6050 Register Map and Descriptions, revision 4.2. Needs
`pip install "laconic[i2c]"`; on a Raspberry Pi, I2C is switched on by `raspi-config`, and the sensor is wired
to pins 1 (3.3 V), 3 (SDA), 5 (SCL) and 6 (ground).
"""

from __future__ import annotations

import math
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from window import ACTIVITIES, SAMPLE_S, STEPS

ADDRESS = 0x68
"""0x69 where the pin AD0 is high."""

_WHO_AM_I, _WHO = 0x75, 0x68
_FIRST = 0x3B
"""ACCEL_XOUT_H: from here 14 bytes of acceleration, temperature and rotation, big-endian (4.17 to 4.19)."""
_SETTINGS = (
    (0x6B, 0x01),  # PWR_MGMT_1: awake, clocked by the gyroscope (4.28)
    (0x1A, 0x04),  # CONFIG: low-pass at 21 Hz, below half of the sample rate (4.3)
    (0x19, 19),  # SMPLRT_DIV: 1 kHz / (1 + 19) = 50 Hz (4.2)
    (0x1B, 0x08),  # GYRO_CONFIG: up to 500 degrees a second (4.4)
    (0x1C, 0x08),  # ACCEL_CONFIG: up to 4 g (4.5)
)
_PER_G = 8192.0
_PER_DEGREE_PER_S = 65.5


def decoded(raw: Sequence[int]) -> np.ndarray:
    """Acceleration in g and rotation in rad/s, x y z each, from the 14 bytes; temperature is left out."""
    ax, ay, az, _, gx, gy, gz = struct.unpack(">7h", bytes(raw))
    turn = math.pi / 180 / _PER_DEGREE_PER_S
    return np.array([ax / _PER_G, ay / _PER_G, az / _PER_G, gx * turn, gy * turn, gz * turn], np.float32)


class Mpu6050:
    """One sensor, set up as the model wants it. `bus` is an `smbus2.SMBus`."""

    def __init__(self, bus: Any, address: int = ADDRESS) -> None:
        self._bus, self._address = bus, address
        if (who := bus.read_byte_data(address, _WHO_AM_I)) != _WHO:
            raise OSError(f"no MPU-6050 at {address:#x}: it says {who:#x}, not {_WHO:#x}")
        for register, value in _SETTINGS:
            bus.write_byte_data(address, register, value)

    def read(self) -> np.ndarray:
        """The newest sample."""
        return decoded(self._bus.read_i2c_block_data(self._address, _FIRST, 14))


def windows(label_file: Path, bus_number: int = 1) -> Iterator[tuple[np.ndarray, int | None]]:
    """Windows for ever; each with what `label_file` says that is being done, if it says anything.

    A window during which its content has changed has no label: nobody knows where the change was.
    """
    from smbus2 import SMBus  # only where there is a sensor

    sensor = Mpu6050(SMBus(bus_number))
    samples: deque[np.ndarray] = deque(maxlen=STEPS)
    due, before = time.monotonic(), label_of(label_file)
    while True:
        for _ in range(STEPS // 2 if len(samples) == STEPS else STEPS):
            due = max(due + SAMPLE_S, time.monotonic() - 5 * SAMPLE_S)
            time.sleep(max(0.0, due - time.monotonic()))
            samples.append(sensor.read())
        label = label_of(label_file)
        yield np.stack(samples), label if label == before else None
        before = label


def label_of(file: Path) -> int | None:
    """What is being done, by the name of an activity in a file; None without one."""
    try:
        word = file.read_text().strip()
    except OSError:
        return None
    return ACTIVITIES.index(word) if word in ACTIVITIES else None
