"""Update frame to dense vector or to its values other than zero, trusting nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from laconic.compression.frame import Section, together, unwrap
from laconic.compression.piece import Given, Piece
from laconic.compression.transforms.low_rank import LowRankPart
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
    sections = _sections(frame, schema, limit_bytes)
    out = np.zeros(schema.size, np.float32)
    for section in sections:
        stretch = together(schema, section.tensors)
        if stretch is not None:
            section.part.fill(out[stretch])
        else:
            for where, values in _filled(section, schema):
                out[where] = values
    return out


def pieces(frame: bytes, schema: Schema, *, limit_bytes: int) -> Iterator[Piece]:
    """What `decode` would return, for a sum: most zeros are left out, and products are made when asked for.

    No value comes twice; what does not come is zero. The bounds and errors of `decode`; errors come while
    iterating, so take all before using any.
    """
    for section in _sections(frame, schema, limit_bytes):
        stretch = together(schema, section.tensors)
        if stretch is not None and isinstance(section.part, LowRankPart):
            yield section.part.piece(stretch.start)
            continue
        entries = section.part.entries()
        if entries is None:
            for where, values in _filled(section, schema):
                yield Given(where, values)
        else:
            positions, values = entries
            yield Given(_placed(positions, section, schema), values)


def _sections(frame: bytes, schema: Schema, limit_bytes: int) -> tuple[Section, ...]:
    if 4 * schema.size > limit_bytes:
        raise LimitExceeded("dense size of an update, in bytes", value=4 * schema.size, limit=limit_bytes)
    return unwrap(frame, schema).sections


def _filled(section: Section, schema: Schema) -> Iterator[tuple[slice, Vector]]:
    """Every tensor of a section with its place."""
    values = np.zeros(section.values, np.float32)
    section.part.fill(values)
    at = 0
    for i in section.tensors:
        where = schema.slices[i]
        size = where.stop - where.start
        yield where, values[at : at + size]
        at += size


def _placed(positions: NDArray[np.int64], section: Section, schema: Schema) -> NDArray[np.int64]:
    """Positions in a section as positions in the flat vector."""
    stretch = together(schema, section.tensors)
    ahead: NDArray[np.int64] | int
    if stretch is not None:
        ahead = stretch.start
        if not ahead:
            return positions
    else:
        stretches = [schema.slices[i] for i in section.tensors]
        ends = np.cumsum([s.stop - s.start for s in stretches])
        lead = np.array([s.stop for s in stretches]) - ends
        ahead = lead[np.searchsorted(ends, positions, side="right")]
    placed: NDArray[np.int64] = positions + ahead
    return placed
