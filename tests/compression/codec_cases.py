"""Schemas, updates and settings that the codec's tests share."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from laconic.compression import PRESETS, CodecSettings, encode
from laconic.schema import Schema, TensorSpec, Vector

LIMIT_BYTES = 1 << 20

FIXED: dict[str, CodecSettings] = {
    **{f"dense{b}": CodecSettings(kind="dense", bits=b) for b in (1, 2, 4)},
    "dense4-stochastic": CodecSettings(kind="dense", bits=4, stochastic=True),
    "topk-exact": CodecSettings(kind="topk", density=0.05, bits=32),
    **{f"topk{b}": CodecSettings(kind="topk", density=0.05, bits=b) for b in (1, 3, 6, 8)},
    "topk4-stochastic": CodecSettings(kind="topk", density=0.05, bits=4, stochastic=True),
    **{f"randomk{b}": CodecSettings(kind="randomk", density=0.1, bits=b) for b in (4, 32)},
    "randomk8-stochastic": CodecSettings(kind="randomk", density=0.1, bits=8, stochastic=True),
    **{f"rotated{b}": CodecSettings(kind="rotated", bits=b) for b in (1, 2, 3, 4)},
    "rotated1-stochastic": CodecSettings(kind="rotated", bits=1, stochastic=True),
}

SETTINGS: dict[str, CodecSettings] = {
    **PRESETS,
    # The tensors of these tests are small: most of them must not be spared for it.
    **{name: replace(chosen, small_tensor_values=64) for name, chosen in FIXED.items()},
    "deadzone-coarse": replace(PRESETS["small"], step_rms=20.0),
    "deadzone-fine": replace(PRESETS["small"], step_rms=0.3),
    "deadzone2": replace(PRESETS["small"], bits=2, small_tensor_values=0),
}
"""One of every kind, width and way of rounding."""


def schema_of(*shapes: tuple[int, ...]) -> Schema:
    """Tensors `t0`, `t1`, ... of these shapes."""
    return Schema(tuple(TensorSpec(f"t{i}", s) for i, s in enumerate(shapes)))


def training_like(schema: Schema, rng: np.random.Generator) -> Vector:
    """An update as training makes it: low rank, heavy tails, dead rows and columns."""
    out = np.zeros(schema.size, np.float32)
    for spec, where in zip(schema.tensors, schema.slices, strict=True):
        rows = spec.shape[0] if spec.shape else 1
        columns = spec.size // max(rows, 1)
        left = rng.standard_normal((rows, 2)) * (rng.random((rows, 1)) < 0.7)
        right = rng.standard_t(3, (2, columns)) * (rng.random((1, columns)) < 0.6)
        noise = 0.05 * rng.standard_normal((rows, columns))
        out[where] = (0.01 * (left @ right + noise)).astype(np.float32).ravel()
    return out


def frame_of(update: Vector, schema: Schema, settings: CodecSettings, rng: np.random.Generator) -> bytes:
    """The frame alone."""
    return encode(update, schema, settings, rng).frame


def resealed(frame: bytes) -> bytes:
    """The frame with a checksum that fits its bytes: what a hostile sender would send."""
    return frame[:-4] + zlib.crc32(frame[:-4]).to_bytes(4, "little")


shapes = st.lists(
    st.one_of(
        st.tuples(),
        st.tuples(st.integers(0, 300)),
        st.tuples(st.integers(1, 40), st.integers(1, 60)),
    ),
    min_size=0,
    max_size=5,
)


KINDS = (
    *("training", "normal", "constant", "zero", "sparse"),
    *("outlier", "alone", "tiny", "huge", "subnormal"),
)


@st.composite
def updates(draw: st.DrawFn, magnitude: float = 1e30) -> tuple[Schema, Vector]:
    """A schema and a finite update: realistic, constant, sparse, tiny, huge or with one outlier."""
    schema = schema_of(*draw(shapes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(KINDS))
    if kind == "training":
        vector = training_like(schema, rng)
    elif kind == "constant":
        vector = np.full(schema.size, draw(st.sampled_from([1.0, -2.5, 1e-20, magnitude])), np.float32)
    elif kind == "zero":
        vector = np.zeros(schema.size, np.float32)
    else:
        vector = rng.standard_normal(schema.size).astype(np.float32)
        if kind == "sparse":
            vector *= rng.random(schema.size) < 0.03
        elif kind == "outlier" and schema.size:
            vector[int(rng.integers(schema.size))] = magnitude
        elif kind == "alone" and schema.size:
            vector = np.zeros(schema.size, np.float32)
            vector[int(rng.integers(schema.size))] = draw(st.sampled_from([1.0, -magnitude, 1e-38]))
        elif kind == "tiny":
            vector *= np.float32(1e-38)
        elif kind == "huge":
            # No normal deviate here is beyond 6.
            vector *= np.float32(magnitude / 6)
        elif kind == "subnormal":
            vector = (vector * 1e-40).astype(np.float32)
    return schema, vector
