"""The IDX format: arrays of numbers as MNIST is published in.

Two zero bytes, a byte for the type, a byte for the number of axes, a length for each (32 bits, big-endian),
then the values, big-endian, the last axis fastest (LeCun, Cortes, Burges, "The MNIST database").
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from laconic.config import read_file
from laconic.device_sim.datasets.labelled import Array
from laconic.device_sim.datasets.reading import gunzip
from laconic.errors import ConfigError

TYPES: Final = MappingProxyType(
    {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
)
LIMIT_BYTES: Final = 1 << 30
_GZIP_MAGIC: Final = b"\x1f\x8b"
_MOST_AXES: Final = 8


def read_idx(path: Path, *, limit_bytes: int = LIMIT_BYTES) -> Array:
    """The array in an IDX file, gzip or not. Raises `ConfigError`."""
    return decode_idx(
        read_file(path, "IDX file", limit_bytes=limit_bytes), str(path), limit_bytes=limit_bytes
    )


def decode_idx(raw: bytes, where: str = "IDX file", *, limit_bytes: int = LIMIT_BYTES) -> Array:
    """The array in an IDX file's bytes, gzip or not: read-only, where they lie, in the file's byte order.

    Raises `ConfigError` for what is no IDX, is longer or shorter than it says, or larger than `limit_bytes`.
    """
    if raw[:2] == _GZIP_MAGIC:
        raw = gunzip(raw, where, limit_bytes=limit_bytes)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in TYPES or not 1 <= raw[3] <= _MOST_AXES:
        raise ConfigError(
            f"first bytes of {where}", value=raw[:4].hex(), limit="0000, a type, a number of axes"
        )
    dtype, axes = np.dtype(TYPES[raw[2]]), raw[3]
    begin = 4 + 4 * axes
    if len(raw) < begin:
        raise ConfigError(f"bytes of {where}", value=len(raw), limit=f"at least {begin}")
    shape = struct.unpack(f">{axes}I", raw[4:begin])
    due = begin + math.prod(shape) * dtype.itemsize
    if len(raw) != due:
        raise ConfigError(f"bytes of {where}", value=len(raw), limit=f"{due}, by its shape {shape}")
    return np.frombuffer(raw, dtype, offset=begin).reshape(shape)
