"""The kinds of settings whose stages are fixed: every value, the largest, a random choice, signs after a
rotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laconic.compression.frame import gathered, layout
from laconic.compression.from_seed import random_part, rotated_part
from laconic.compression.quantisers.float32 import FLOAT32
from laconic.compression.quantisers.ladder import LADDER
from laconic.compression.quantisers.planes import FLOAT_PLANES
from laconic.compression.quantisers.uniform import UNIFORM
from laconic.compression.seeded import MAX_SEED, derived
from laconic.compression.selection import fitted, largest, squared
from laconic.compression.settings import EXACT_BITS, CodecSettings
from laconic.compression.stages import Entries
from laconic.compression.transforms import TRANSFORMS
from laconic.compression.transforms.dense import DENSE
from laconic.compression.transforms.sparse import SPARSE
from laconic.compression.transforms.zero import ZERO
from laconic.compression.wire import Reader
from laconic.schema import Schema, Vector

_SMALL_BITS = 8

# Beyond this a scale times an integer could leave float32; such a tensor is sent as it is.
PEAK = 2.0**120

# A transform's and a quantiser's number.
_EXACT = bytes([DENSE.number, FLOAT32.number])
_EXACT_OVERHEAD = len(_EXACT)
EXACT_STAGES = (DENSE.name, FLOAT32.name)


@dataclass(frozen=True, slots=True)
class Written:
    """A section: its tensors, what it holds, and the sum of squares that it leaves out of them."""

    tensors: tuple[int, ...]
    part: bytes
    stages: tuple[str, ...]
    error: float


def sections(
    update: Vector,
    schema: Schema,
    settings: CodecSettings,
    rng: np.random.Generator,
    seed: int | None,
    energies: Sequence[float],
) -> tuple[frozenset[int], list[Written]]:
    """The tensors in the pool, and the sections in the order of `laconic.compression.frame.layout`.

    `seed`: of "randomk" and "rotated"; the first draw of `rng` if None. `energies`: each tensor's sum of
    squares.

    Top-k has one section for all tensors that it may leave values out of: one threshold has a smaller squared
    error than one a tensor, at the same number of kept values, and a section costs the time of fifty thousand
    values, however few it holds.
    """
    draw = rng if settings.stochastic else None
    large = (i for i, energy in enumerate(energies) if energy > PEAK**2)
    huge = {i for i in large if _peak(update[schema.slices[i]]) > PEAK}
    pool = frozenset(_thinned(schema, settings) - huge if settings.kind == "topk" else ())
    if settings.kind in ("randomk", "rotated") and seed is None:
        seed = int(rng.integers(MAX_SEED, endpoint=True, dtype=np.uint64))
    written = []
    for tensors in layout(len(schema.tensors), pool):
        values, i = gathered(update, schema, tensors), tensors[0]
        part: bytes | None
        sent: Entries | None = None
        if settings.kind == "lossless":
            part = _lossless(values, settings.zstd_level)
        elif i in huge:
            part = exact(values)
        elif i in pool:
            part, sent = _kept(values, settings, draw)
        elif settings.kind in ("dense", "topk") or values.size <= settings.small_tensor_values:
            part = _dense(values, settings, draw)
        else:
            assert seed is not None
            own = derived(seed, i)
            random = settings.kind == "randomk"
            part = random_part(values, settings, own, draw) if random else rotated_part(values, settings, own)
        if part is None or len(part) >= _EXACT_OVERHEAD + 4 * values.size:
            part, sent = exact(values), None
        stages, error = _left_out(part, sent, values, sum(energies[i] for i in tensors))
        written.append(Written(tensors, part, stages, error))
    return pool, written


def _thinned(schema: Schema, settings: CodecSettings) -> set[int]:
    """The tensors of which top-k leaves values out: what is small is spared, and what is measured, not
    trained."""
    return {
        i
        for i, t in enumerate(schema.tensors)
        if not t.statistic and (t.size > settings.small_tensor_values or not t.size)
    }


def _peak(values: Vector) -> float:
    """The largest magnitude of values, which are not empty."""
    return max(float(values.max()), -float(values.min()))


def exact(tensor: Vector) -> bytes:
    """Every value as it is."""
    if not tensor.size:
        return ZERO.write()
    # As the two stages' writers would have it, in one copy.
    return b"".join((_EXACT, np.ascontiguousarray(tensor, "<f4").data))


def _lossless(tensor: Vector, level: int) -> bytes:
    """Every value as it is, entropy coded where that is smaller."""
    plain = exact(tensor)
    return min(plain, DENSE.write(FLOAT_PLANES.write(tensor, level)), key=len) if tensor.size else plain


def _dense(tensor: Vector, settings: CodecSettings, draw: np.random.Generator | None) -> bytes:
    """Every value: exact, or uniform with 8 bits where it is spared, else with `settings.bits`."""
    if settings.bits == EXACT_BITS:
        return exact(tensor)
    if not tensor.any():
        return ZERO.write()
    spared = settings.kind == "topk" or tensor.size <= settings.small_tensor_values
    bits = _SMALL_BITS if spared else settings.bits
    return DENSE.write(UNIFORM.write(tensor, bits, settings.zstd_level, draw))


def _kept(
    values: Vector, settings: CodecSettings, draw: np.random.Generator | None
) -> tuple[bytes, Entries | None]:
    """The values that top-k keeps: exact, uniform at random, or on rungs fitted to them, which are returned
    as they will be decoded."""
    positions = largest(values, round(settings.density * values.size))
    if not positions.size:
        return ZERO.write(), None
    kept, level = values[positions], settings.zstd_level
    sent: Entries | None = None
    if settings.bits == EXACT_BITS:
        quantised = FLOAT32.write(kept)
    elif draw is not None:
        quantised = UNIFORM.write(kept, settings.bits, level, draw)
    else:
        rungs = fitted(kept, settings.bits)
        if rungs is None:
            # Too small for a scale: all of it stays in the residual.
            return ZERO.write(), None
        quantised = LADDER.write(rungs.negative, rungs.levels, rungs.ladder, level)
        sent = positions, rungs.values()
    return SPARSE.write(positions, values.size, quantised, level), sent


def _left_out(
    part: bytes, sent: Entries | None, values: Vector, energy: float
) -> tuple[tuple[str, ...], float]:
    """A part's stages, and the sum of squares of what it leaves out of `values`.

    `sent`: what it will be decoded to, where that is known. `energy`: the sum of squares of `values`, so that
    where few are sent the many zeros need not be looked at.
    """
    reader = Reader(memoryview(part))
    read = TRANSFORMS.read(reader).read(reader, values.size)
    if part.startswith(_EXACT):
        return read.stages, 0.0
    sent = sent if sent is not None else read.entries()
    if sent is None:
        decoded = np.zeros(values.size, np.float32)
        read.fill(decoded)
        return read.stages, squared(np.subtract(values, decoded, out=decoded))
    positions, chosen = sent
    own = values[positions]
    return read.stages, max(energy - squared(own), 0.0) + squared(own - chosen)
