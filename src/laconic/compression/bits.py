"""Fixed-width bit packing of small unsigned codes, least significant bit first."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression import native
from laconic.errors import Malformed

Codes: TypeAlias = NDArray[np.uint8]
"""Unsigned codes of at most 8 bits, shape `(count,)`."""

Mask: TypeAlias = NDArray[np.bool_]
"""Which values of a tensor are kept, shape `(values,)`."""

# Packing makes one byte per bit; a multiple of 8 codes ends on a byte, whatever the width.
_CHUNK = 1 << 16


def packed_size(count: int, width: int) -> int:
    """Bytes that `count` codes of `width` bits fill."""
    return (count * width + 7) // 8


def pack(codes: Codes, width: int) -> bytes:
    """Codes to bytes: code `i` fills the bits `[i * width, (i + 1) * width)`, lowest bit first.

    `codes`: uint8, shape `(count,)`, each below `2 ** width`; `width` from 1 to 8. The last byte is padded
    with zero bits.
    """
    if width == 8:
        return codes.tobytes()
    if width == 1:
        return np.packbits(codes, bitorder="little").tobytes()
    if width in (2, 4):
        return _pack_evenly(codes, width)
    parts = []
    for start in range(0, codes.size, _CHUNK):
        bits = np.unpackbits(codes[start : start + _CHUNK, None], axis=1, count=width, bitorder="little")
        parts.append(np.packbits(bits, bitorder="little").tobytes())
    return b"".join(parts)


def unpack(data: bytes | memoryview, count: int, width: int) -> Codes:
    """The inverse of `pack`: uint8, shape `(count,)`.

    Raises `Malformed` for a wrong length or padding that is not zero.
    """
    if len(data) != packed_size(count, width):
        raise Malformed("length of packed codes", value=len(data), limit=packed_size(count, width))
    spare = 8 * len(data) - count * width
    if spare and data[-1] >> (8 - spare):
        raise Malformed("padding of packed codes", value=data[-1] >> (8 - spare), limit=0)
    raw = np.frombuffer(data, np.uint8)
    if width == 8:
        return raw
    if width == 1:
        return np.unpackbits(raw, count=count, bitorder="little")
    out = np.empty(count, np.uint8)
    if width in (2, 4):
        # Codes that never cross a byte's edge: ten times as fast as bit by bit.
        low = np.uint8((1 << width) - 1)
        for i in range(8 // width):
            place = out[i :: 8 // width]
            np.bitwise_and(raw[: place.size] >> np.uint8(i * width), low, out=place)
        return out
    if native.ready_for_values(count):
        from laconic.compression.native.sparse import unpacked

        return unpacked(raw, count, width)
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        first, last = start * width // 8, packed_size(stop, width)
        out[start:stop] = _unpack_words(raw[first:last], width)[: stop - start]
    return out


def _unpack_words(raw: NDArray[np.uint8], width: int) -> Codes:
    """Codes of any width: eight fill `width` bytes, which are widened to a word of 64 bits and shifted.

    Five times as fast as bit by bit; eight bytes of scratch memory a code.
    """
    whole, rest = divmod(raw.size, width)
    padded = np.zeros((whole + 1, 8), np.uint8)
    padded[:whole, :width] = raw[: whole * width].reshape(whole, width)
    padded[whole, :rest] = raw[whole * width :]
    codes = (padded.view("<u8") >> np.arange(0, 8 * width, width, dtype=np.uint64)).astype(np.uint8)
    np.bitwise_and(codes, np.uint8((1 << width) - 1), out=codes)
    return codes.reshape(-1)


def _pack_evenly(codes: Codes, width: int) -> bytes:
    """`pack` for widths that divide 8: whole bytes are put together from every so manyth code."""
    each = 8 // width
    out = np.zeros(packed_size(codes.size, width), np.uint8)
    for i in range(each):
        part = codes[i::each]
        out[: part.size] |= part << np.uint8(i * width)
    return out.tobytes()
