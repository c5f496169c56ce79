"""What a frame consists of: for `laconic codec inspect`, reports and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from laconic.compression.frame import unwrap


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a frame; `index` is its place in the schema."""

    index: int
    values: int
    bytes: int
    share: float
    """Of the frame's bytes, 0 to 1."""
    bits_per_value: float
    stages: tuple[str, ...]
    params: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """A frame: `ratio` is float32 bytes over frame bytes."""

    version: int
    schema_digest: bytes
    values: int
    bytes: int
    ratio: float
    bits_per_value: float
    tensors: tuple[TensorInfo, ...]


def inspect(frame: bytes) -> FrameInfo:
    """Take a frame apart without decompressing it; needs no schema, and so knows no names.

    Raises `Malformed`, `ChecksumMismatch`, `UnsupportedVersion` or `NonFinite`; what only decompression
    shows stays unseen.
    """
    parsed = unwrap(frame, None)
    values = sum(s.values for s in parsed.sections)
    tensors = tuple(
        TensorInfo(
            index=i,
            values=s.values,
            bytes=s.bytes,
            share=s.bytes / parsed.bytes,
            bits_per_value=8 * s.bytes / s.values if s.values else 0.0,
            stages=s.part.stages,
            params=s.part.params,
        )
        for i, s in enumerate(parsed.sections)
    )
    return FrameInfo(
        version=parsed.version,
        schema_digest=parsed.digest,
        values=values,
        bytes=parsed.bytes,
        ratio=4 * values / parsed.bytes,
        bits_per_value=8 * parsed.bytes / values if values else 0.0,
        tensors=tensors,
    )
