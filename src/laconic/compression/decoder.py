"""Update frame to dense vector, trusting nothing."""

from __future__ import annotations

import numpy as np

from laconic.compression.frame import unwrap
from laconic.errors import LimitExceeded
from laconic.schema import Schema, Vector


def decode(frame: bytes, schema: Schema, *, limit_bytes: int) -> Vector:
    """The vector that a frame stands for: float32, shape `(schema.size,)`, every value finite.

    The same bytes give the same bits on every platform: a value is an integer times a float32 scale, rounded
    once. `limit_bytes` bounds the dense result; scratch memory stays below the same bound plus 2 MiB,
    whatever the frame says. Specification: docs/spec/update-frame.md.

    Raises `LimitExceeded` when the schema's vector is larger than `limit_bytes`, `Malformed`,
    `ChecksumMismatch`, `UnsupportedVersion` or `NonFinite` for a frame that is not what the specification
    says or belongs to another schema.
    """
    if 4 * schema.size > limit_bytes:
        raise LimitExceeded("dense size of an update, in bytes", value=4 * schema.size, limit=limit_bytes)
    sections = unwrap(frame, schema).sections
    out = np.zeros(schema.size, np.float32)
    for section, where in zip(sections, schema.slices, strict=True):
        section.part.fill(out[where])
    return out
