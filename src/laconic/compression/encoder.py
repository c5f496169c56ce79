"""Dense vector to update frame: decides per tensor which stages make the fewest bytes."""

from __future__ import annotations

import numpy as np

from laconic.compression.bits import Mask
from laconic.compression.frame import wrap
from laconic.compression.quantisers.float32 import FLOAT32
from laconic.compression.quantisers.ladder import LADDER
from laconic.compression.quantisers.uniform import UNIFORM
from laconic.compression.selection import Rungs, dead_zone, fitted, largest, root_mean_square
from laconic.compression.settings import EXACT_BITS, CodecSettings
from laconic.compression.stages import finite
from laconic.compression.transforms.dense import DENSE
from laconic.compression.transforms.sparse import SPARSE
from laconic.compression.transforms.zero import ZERO
from laconic.errors import ModelError, NonFinite
from laconic.schema import Schema, Vector

_SMALL_BITS = 8

# Beyond this a scale times an integer could leave float32; such a tensor is sent as it is.
_PEAK = 2.0**120

# A transform's and a quantiser's number.
_EXACT_OVERHEAD = 2


def encode(update: Vector, schema: Schema, settings: CodecSettings, rng: np.random.Generator) -> bytes:
    """An update to a self-describing frame.

    `update`: float32, shape `(schema.size,)`, finite. `rng` is drawn from only if `settings.stochastic`; the
    same arguments and generator state give the same frame. A lossy frame leaves out part of the update: the
    caller keeps `update - decode(frame)` (`laconic.compression.feedback`).

    Step and threshold are common to all large tensors: one threshold over the whole vector has a smaller
    squared error than one a tensor, at the same number of kept values.

    Raises `ModelError` for another shape or dtype, `NonFinite` for NaN or infinity.
    """
    if update.shape != (schema.size,) or update.dtype != np.float32:
        raise ModelError(
            "shape and dtype of an update",
            value=(update.shape, str(update.dtype)),
            limit=((schema.size,), "float32"),
        )
    if not finite(update):
        raise NonFinite("value of an update", value="NaN or infinity", remedy="drop this update")
    draw = rng if settings.stochastic else None
    large = np.zeros(schema.size, np.bool_)
    for where in schema.slices:
        large[where] = where.stop - where.start > settings.small_tensor_values
    step, kept = 0.0, large
    if settings.kind == "deadzone":
        step = settings.step_rms * root_mean_square(update[large])
    elif settings.kind == "topk":
        kept = np.zeros(schema.size, np.bool_)
        kept[large] = largest(update[large], round(settings.density * np.count_nonzero(large)))
    parts = []
    for where in schema.slices:
        tensor = update[where]
        if tensor.size and float(np.abs(tensor).max()) > _PEAK:
            part = _exact(tensor)
        elif settings.kind == "dense" or tensor.size <= settings.small_tensor_values:
            part = _dense(tensor, settings, draw)
        elif settings.kind == "deadzone":
            part = _on_rungs(dead_zone(tensor, step, settings.bits), settings)
        else:
            part = _kept(tensor, kept[where], settings, draw)
        parts.append(part if len(part) < _EXACT_OVERHEAD + 4 * tensor.size else _exact(tensor))
    return wrap(schema, parts)


def _exact(tensor: Vector) -> bytes:
    return DENSE.write(FLOAT32.write(tensor)) if tensor.size else ZERO.write()


def _dense(tensor: Vector, settings: CodecSettings, draw: np.random.Generator | None) -> bytes:
    """Every value: exact, or uniform with 8 bits in a small tensor and `settings.bits` in a large one."""
    if settings.bits == EXACT_BITS:
        return _exact(tensor)
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
