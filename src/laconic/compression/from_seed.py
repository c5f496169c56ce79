"""Sections whose stages follow a seed that both sides know: random-k, and rotated codes."""

from __future__ import annotations

import numpy as np

from laconic.compression.quantisers.float32 import FLOAT32
from laconic.compression.quantisers.rotated import PEAK, ROTATED
from laconic.compression.quantisers.uniform import UNIFORM
from laconic.compression.seeded import support
from laconic.compression.settings import EXACT_BITS, CodecSettings
from laconic.compression.transforms.dense import DENSE
from laconic.compression.transforms.random_k import RANDOM_K
from laconic.schema import Vector


def random_part(
    tensor: Vector, settings: CodecSettings, seed: int, draw: np.random.Generator | None
) -> bytes | None:
    """The `density` share of a tensor's values, at positions that follow from the seed.

    With `draw` each value is multiplied by values / kept and rounded at random, which makes the expectation
    of what is decoded the tensor itself; without, values are sent as they are, for use with error feedback.
    A tensor of zeros is sent like any other: the size of a section says nothing about its values. None
    for values too large to be multiplied.
    """
    kept = max(1, round(settings.density * tensor.size))
    chosen = tensor[support(seed, tensor.size, kept)]
    if draw is not None:
        if float(np.abs(tensor).max()) * tensor.size / kept > PEAK:
            return None
        chosen = chosen * np.float32(tensor.size / kept)
    if settings.bits == EXACT_BITS:
        return RANDOM_K.write(kept, seed, FLOAT32.write(chosen))
    return RANDOM_K.write(kept, seed, UNIFORM.write(chosen, settings.bits, settings.zstd_level, draw))


def rotated_part(tensor: Vector, settings: CodecSettings, seed: int) -> bytes | None:
    """All values of a tensor, rotated, at 1 to 4 bits; unbiased if the settings round at random.

    None for values too large for it.
    """
    if float(np.abs(tensor).max()) > PEAK:
        return None
    level, unbiased = settings.zstd_level, settings.stochastic
    return DENSE.write(ROTATED.write(tensor, settings.bits, level, seed, unbiased=unbiased))
