"""The `.npy` format of numpy, for bytes that nobody vouches for."""

from __future__ import annotations

import io
import math
from tokenize import TokenError

import numpy as np

from laconic.device_sim.datasets.labelled import Array
from laconic.errors import ConfigError


def decode_npy(raw: bytes, where: str) -> Array:
    """The array of numbers in a `.npy` file's bytes, read-only and where they lie, in C order.

    Raises `ConfigError` for what is none, holds objects, or is longer or shorter than it says.
    """
    file = io.BytesIO(raw)
    try:
        major, _ = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
    # numpy hands a header on to Python's own parser.
    except (ValueError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError) as e:
        raise ConfigError(f"{where} is no .npy file ({e})", remedy="get it again") from e
    begin = file.tell()
    due = begin + math.prod(shape) * dtype.itemsize
    if dtype.kind not in "biuf" or fortran:
        raise ConfigError(f"type of {where}", value=dtype.str, limit="numbers, in C order")
    if len(raw) != due or not all(0 <= length <= len(raw) for length in shape):
        raise ConfigError(f"bytes of {where}", value=len(raw), limit=f"{due}, by its shape {shape}")
    return np.frombuffer(raw, dtype, offset=begin).reshape(shape)
