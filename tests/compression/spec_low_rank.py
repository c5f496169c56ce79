"""Transform 05 as the specification has it: slow, plain, and trusting its input."""

from __future__ import annotations

import struct
from typing import Protocol


class Bytes(Protocol):
    """A frame that is read from its beginning to its end."""

    def bytes(self, count: int) -> bytes: ...
    def u8(self) -> int: ...
    def varint(self) -> int: ...
    def f32(self) -> float: ...
    def tensor(self, size: int) -> list[float]: ...


class Body(Protocol):
    """An adaptive body, stream after stream."""

    def stream(self, contexts: list[int], alphabet: int, contexts_count: int) -> list[int]: ...
    def end(self) -> None: ...


class BodyOf(Protocol):
    def __call__(self, data: bytes) -> Body: ...


def low_rank(frame: Bytes, values: int, body_of: BodyOf) -> list[float]:
    columns, rank = frame.varint(), frame.u8()
    rows = values // columns
    scale = frame.f32()
    codes = list(frame.bytes(rank))
    alphabet = frame.u8()
    body = body_of(frame.bytes(frame.varint()))

    count = rows + columns
    high = (count + 31) // 32
    order = [i for j in range(high) for i in range(j, 32 * high, high) if i < count]
    kind = [int(i >= rows) for i in range(count)]
    flags = body.stream([kind[i] for i in order], 2, 2)
    live = [i for i, flag in zip(order, flags, strict=True) if flag]
    cells = [(i, k) for i in live for k in range(rank)]
    tokens = body.stream([min(codes[k] // 2, 15) for _, k in cells], alphabet, 16)
    widths = [0 if t < 12 else 2 + (t - 11) // 2 for t in tokens]
    bits = iter(body.stream([0] * sum(widths), 2, 1))
    magnitudes = []
    for t, width in zip(tokens, widths, strict=True):
        m = t if t < 12 else 2 + (t - 11) % 2
        for _ in range(width):
            m = 2 * m + next(bits)
        magnitudes.append(m)
    sent = [c for c, m in zip(cells, magnitudes, strict=True) if m]
    signs = iter(body.stream([2 * min(k, 15) + kind[i] for i, k in sent], 2, 32))
    body.end()
    factor = {c: -m if m and next(signs) else m for c, m in zip(cells, magnitudes, strict=True)}

    rest = frame.tensor(values)
    weight = [(4 + c % 4) << c // 4 for c in codes]
    out = []
    for a in range(rows):
        for b in range(columns):
            whole = sum(
                w * factor.get((a, k), 0) * factor.get((rows + b, k), 0) for k, w in enumerate(weight)
            )
            # Exact in a double; and a double has more than twice the digits, so rounding twice does no harm.
            product = rounded(whole * scale)
            out.append(rounded(product + rest[columns * a + b]))
    return out


def rounded(number: float) -> float:
    """To binary32."""
    return struct.unpack("<f", struct.pack("<f", number))[0]
