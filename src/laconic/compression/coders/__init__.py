"""The entropy coders, and the choice among them by measuring."""

from __future__ import annotations

import numpy as np

from laconic.compression.bits import Codes, pack
from laconic.compression.coders.adaptive import ADAPTIVE
from laconic.compression.coders.packed import PACKED
from laconic.compression.coders.raw import RAW
from laconic.compression.coders.zstd import PACKED_ZSTD, ZSTD, deflate
from laconic.compression.stages import Coder, Registry, Stream
from laconic.compression.wire import Reader

CODERS: Registry[Coder] = Registry("coder", range(0x30, 0x40), (RAW, PACKED, ZSTD, PACKED_ZSTD, ADAPTIVE))

FASTEST = 1
"""The level at which speed counts most."""

_SHORT = 12
"""Up to so many bytes zstd's own header costs what could be saved."""

_LONG = 1 << 14
"""Beyond so many codes the adaptive coder is tried only if their entropy is below the other coders' best."""


def write_codes(codes: Codes, width: int, level: int) -> bytes:
    """Codes to a coder's number and its bytes, the smallest of all coders; the lowest number wins a tie.

    `codes`: uint8, shape `(count,)`, each below `2 ** width`, `width` from 1 to 8. `level` is zstd's; at
    `FASTEST` only packed codes are tried, with and without zstd.
    """
    if level == FASTEST:
        return _fastest(codes, width)
    # Codes of a whole byte are packed as they are, and need no second attempt.
    tried = [c for c in CODERS if c is not ADAPTIVE and (width < 8 or c not in (PACKED, PACKED_ZSTD))]
    written = (_written(coder, codes, width, level) for coder in tried)
    best = min((w for w in written if w is not None), key=len)
    if codes.size > _LONG and _entropy_bytes(codes) > len(best):
        return best
    adaptive = _written(ADAPTIVE, codes, width, level)
    return adaptive if adaptive is not None and len(adaptive) < len(best) else best


def _fastest(codes: Codes, width: int) -> bytes:
    """Of signs and levels of real updates in all a thousandth longer than the smallest of all coders but the
    adaptive one, which takes ten times as long."""
    plain = pack(codes, width)
    whole = width == 8
    packed = bytes([(RAW if whole else PACKED).number]) + plain
    if len(plain) <= _SHORT:
        return packed
    squeezed = bytes([(ZSTD if whole else PACKED_ZSTD).number]) + deflate(plain, FASTEST)
    return min(packed, squeezed, key=len)


def _written(coder: Coder, codes: Codes, width: int, level: int) -> bytes | None:
    body = coder.encode(codes, width, level)
    return None if body is None else bytes([coder.number]) + body


def _entropy_bytes(codes: Codes) -> float:
    counts = np.bincount(codes)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / codes.size)).sum() / 8)


def read_codes(reader: Reader, count: int, width: int) -> Stream:
    """The inverse of `write_codes`, up to the work itself. Raises `WireError`."""
    return CODERS.read(reader).read(reader, count, width)
