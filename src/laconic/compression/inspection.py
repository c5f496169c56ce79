"""What a frame consists of: for `laconic codec inspect`, reports and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from laconic.compression.frame import Section, unwrap
from laconic.errors import LimitExceeded


@dataclass(frozen=True, slots=True)
class SectionInfo:
    """One section of a frame; `tensors` are the places in the schema of what it holds."""

    tensors: tuple[int, ...]
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
    sections: tuple[SectionInfo, ...]


def inspect(frame: bytes) -> FrameInfo:
    """Take a frame apart without decompressing it; needs no schema, and so knows no names.

    Raises `Malformed`, `ChecksumMismatch`, `UnsupportedVersion` or `NonFinite`; what only decompression
    shows stays unseen.
    """
    parsed = unwrap(frame, None)
    values = sum(s.values for s in parsed.sections)
    return FrameInfo(
        version=parsed.version,
        schema_digest=parsed.digest,
        values=values,
        bytes=parsed.bytes,
        ratio=4 * values / parsed.bytes,
        bits_per_value=8 * parsed.bytes / values if values else 0.0,
        sections=tuple(_info(s, parsed.bytes) for s in parsed.sections),
    )


def entropies(frame: bytes, *, limit_bytes: int) -> tuple[float, ...]:
    """The order-0 entropy of what each section sends, in bytes: positions, signs and levels.

    Decompresses the frame. A coder that knows the rows and columns of a matrix stays below it. The errors of
    `laconic.compression.decode`, with `limit_bytes` for the dense size of the frame's values.
    """
    parsed = unwrap(frame, None)
    size = 4 * sum(s.values for s in parsed.sections)
    if size > limit_bytes:
        raise LimitExceeded("dense size of an update, in bytes", value=size, limit=limit_bytes)
    return tuple(section.part.entropy_bits() / 8 for section in parsed.sections)


def _info(section: Section, frame_bytes: int) -> SectionInfo:
    return SectionInfo(
        tensors=section.tensors,
        values=section.values,
        bytes=section.bytes,
        share=section.bytes / frame_bytes,
        bits_per_value=8 * section.bytes / section.values if section.values else 0.0,
        stages=section.part.stages,
        params=section.part.params,
    )
