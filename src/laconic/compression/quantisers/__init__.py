"""The quantisers: values to codes and back."""

from __future__ import annotations

from laconic.compression.quantisers.float32 import FLOAT32
from laconic.compression.quantisers.ladder import LADDER
from laconic.compression.quantisers.planes import FLOAT_PLANES
from laconic.compression.quantisers.rotated import ROTATED
from laconic.compression.quantisers.uniform import UNIFORM
from laconic.compression.stages import Quantiser, Registry, Values
from laconic.compression.wire import Reader

QUANTISERS: Registry[Quantiser] = Registry(
    "quantiser", range(0x10, 0x20), (FLOAT32, UNIFORM, LADDER, ROTATED, FLOAT_PLANES)
)


def read_values(reader: Reader, count: int) -> tuple[Quantiser, Values]:
    """The quantiser that comes next, and its values. Raises `WireError`."""
    quantiser = QUANTISERS.read(reader)
    return quantiser, quantiser.read(reader, count)
