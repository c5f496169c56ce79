"""Update frame to dense vector or to its values other than zero, trusting nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.compression.frame import Section, unwrap
from laconic.errors import LimitExceeded
from laconic.schema import Schema, Vector


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of an update's values: those at `where`, a stretch or int64 positions, each at most once."""

    where: slice | NDArray[np.int64]
    values: Vector


def whole(update: Vector) -> tuple[Piece]:
    """A dense vector as its only piece."""
    return (Piece(slice(0, update.size), update),)


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
        if len(section.tensors) == 1:
            section.part.fill(out[schema.slices[section.tensors[0]]])
        else:
            for where, values in _filled(section, schema):
                out[where] = values
    return out


def pieces(frame: bytes, schema: Schema, *, limit_bytes: int) -> Iterator[Piece]:
    """What `decode` would return, without the zeros of tensors of which few values are sent.

    No value comes twice; what does not come is zero. For folding many updates, most of whose values are zero.
    The bounds and errors of `decode`; errors come while iterating, so take all before using any.
    """
    for section in _sections(frame, schema, limit_bytes):
        entries = section.part.entries()
        if entries is None:
            for where, values in _filled(section, schema):
                yield Piece(where, values)
        elif len(section.tensors) == 1:
            positions, values = entries
            yield Piece(positions + schema.slices[section.tensors[0]].start, values)
        else:
            yield Piece(_places(section, schema)[entries[0]], entries[1])


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


def _places(section: Section, schema: Schema) -> NDArray[np.int64]:
    """Where each value of a section lies in the flat vector."""
    stretches = [schema.slices[i] for i in section.tensors]
    return np.concatenate([np.arange(s.start, s.stop, dtype=np.int64) for s in stretches])
