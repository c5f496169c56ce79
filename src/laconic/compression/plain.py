"""The kinds of settings whose stages are fixed: every value, the largest, a random choice, signs after a
rotation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from laconic.compression.bits import Mask
from laconic.compression.from_seed import random_part, rotated_part
from laconic.compression.quantisers.float32 import FLOAT32
from laconic.compression.quantisers.ladder import LADDER
from laconic.compression.quantisers.planes import FLOAT_PLANES
from laconic.compression.quantisers.uniform import UNIFORM
from laconic.compression.seeded import MAX_SEED, derived
from laconic.compression.selection import Rungs, fitted, largest_of
from laconic.compression.settings import EXACT_BITS, CodecSettings
from laconic.compression.transforms.dense import DENSE
from laconic.compression.transforms.sparse import SPARSE
from laconic.compression.transforms.zero import ZERO
from laconic.schema import Schema, Vector

_SMALL_BITS = 8

# Beyond this a scale times an integer could leave float32; such a tensor is sent as it is.
PEAK = 2.0**120

# A transform's and a quantiser's number.
_EXACT_OVERHEAD = 2


def parts(
    update: Vector,
    schema: Schema,
    settings: CodecSettings,
    rng: np.random.Generator,
    seed: int | None,
    energies: Sequence[float],
) -> list[bytes]:
    """What each tensor's section holds. `seed`: of "randomk" and "rotated"; the first draw of `rng` if None.

    `energies`: each tensor's sum of squares.

    The threshold of top-k is common to all large tensors: it has a smaller squared error than one a tensor,
    at the same number of kept values.
    """
    draw = rng if settings.stochastic else None
    tensors = [update[where] for where in schema.slices]
    masks: Iterator[Mask] = iter(())
    if settings.kind == "topk":
        large = [t for t in tensors if t.size > settings.small_tensor_values]
        masks = iter(largest_of(large, round(settings.density * sum(t.size for t in large))))
    elif settings.kind in ("randomk", "rotated") and seed is None:
        seed = int(rng.integers(MAX_SEED, endpoint=True, dtype=np.uint64))
    written = []
    for i, tensor in enumerate(tensors):
        part: bytes | None
        mask = next(masks) if settings.kind == "topk" and tensor.size > settings.small_tensor_values else None
        if settings.kind == "lossless":
            part = _lossless(tensor, settings.zstd_level)
        elif energies[i] > PEAK**2 and max(float(tensor.max()), -float(tensor.min())) > PEAK:
            part = exact(tensor)
        elif settings.kind == "dense" or tensor.size <= settings.small_tensor_values:
            part = _dense(tensor, settings, draw)
        elif mask is not None:
            part = _kept(tensor, mask, settings, draw)
        else:
            assert seed is not None
            own = derived(seed, i)
            random = settings.kind == "randomk"
            part = random_part(tensor, settings, own, draw) if random else rotated_part(tensor, settings, own)
        fits = part is not None and len(part) < _EXACT_OVERHEAD + 4 * tensor.size
        written.append(part if part is not None and fits else exact(tensor))
    return written


def exact(tensor: Vector) -> bytes:
    """Every value as it is."""
    return DENSE.write(FLOAT32.write(tensor)) if tensor.size else ZERO.write()


def _lossless(tensor: Vector, level: int) -> bytes:
    """Every value as it is, entropy coded where that is smaller."""
    plain = exact(tensor)
    return min(plain, DENSE.write(FLOAT_PLANES.write(tensor, level)), key=len) if tensor.size else plain


def _dense(tensor: Vector, settings: CodecSettings, draw: np.random.Generator | None) -> bytes:
    """Every value: exact, or uniform with 8 bits in a small tensor and `settings.bits` in a large one."""
    if settings.bits == EXACT_BITS:
        return exact(tensor)
    if not tensor.any():
        return ZERO.write()
    bits = _SMALL_BITS if tensor.size <= settings.small_tensor_values else settings.bits
    return DENSE.write(UNIFORM.write(tensor, bits, settings.zstd_level, draw))


def _on_rungs(rungs: Rungs | None, settings: CodecSettings) -> bytes:
    """Values on a ladder. Without any, nothing is sent: all of the tensor stays in the residual."""
    if rungs is None:
        return ZERO.write()
    quantised = LADDER.write(rungs.negative, rungs.levels, rungs.ladder, settings.zstd_level)
    return SPARSE.write(rungs.mask, quantised, settings.zstd_level)


def _kept(tensor: Vector, mask: Mask, settings: CodecSettings, draw: np.random.Generator | None) -> bytes:
    """The values that top-k keeps: exact, uniform at random, or on rungs fitted to them."""
    if not mask.any():
        return ZERO.write()
    if settings.bits == EXACT_BITS:
        return SPARSE.write(mask, FLOAT32.write(tensor[mask]), settings.zstd_level)
    if draw is not None:
        quantised = UNIFORM.write(tensor[mask], settings.bits, settings.zstd_level, draw)
        return SPARSE.write(mask, quantised, settings.zstd_level)
    return _on_rungs(fitted(tensor, mask, settings.bits), settings)
