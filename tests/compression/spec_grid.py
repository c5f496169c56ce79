"""Transform 04 as the specification has it: slow, plain, and trusting its input."""

from __future__ import annotations

import struct
from typing import Protocol


class Bytes(Protocol):
    """A frame that is read from its beginning to its end."""

    def bytes(self, count: int) -> bytes: ...
    def u8(self) -> int: ...
    def varint(self) -> int: ...


class Body(Protocol):
    """An adaptive body, stream after stream."""

    def stream(self, contexts: list[int], alphabet: int, contexts_count: int) -> list[int]: ...
    def end(self) -> None: ...


class BodyOf(Protocol):
    def __call__(self, data: bytes) -> Body: ...


def grid(frame: Bytes, values: int, body_of: BodyOf) -> list[float]:
    columns = frame.varint() or values
    rows = values // columns
    classes = frame.u8()
    row_classes, column_classes = classes % 8 + 1, classes // 8 % 8 + 1
    signs_and_offsets = frame.u8()
    sign_classes, listed = signs_and_offsets % 16, signs_and_offsets // 16
    gap_symbols = frame.u8()
    (scale,) = struct.unpack("<f", b"\0\0" + frame.bytes(2))
    rungs = frame.u8()
    offsets = [*frame.bytes(listed), 64, 64, 64, 64][:4]
    kept = {}
    for a in range(row_classes):
        for b in range(column_classes):
            skipped = (a == 0 and classes & 64) or (b == 0 and classes & 128)
            kept[a, b] = 0 if skipped else frame.varint()
    coded = body_of(frame.bytes(frame.varint()))
    low = int.from_bytes(frame.bytes(frame.varint()), "little")

    def stream(contexts: list[int], alphabet: int, contexts_count: int) -> list[int]:
        count = len(contexts)
        length = (count + 31) // 32
        order = [i for j in range(length) for i in range(j, 32 * length, length) if i < count]
        dealt = coded.stream([contexts[i] for i in order], alphabet, contexts_count)
        out = [0] * count
        for i, symbol in zip(order, dealt, strict=True):
            out[i] = symbol
        return out

    def take(width: int) -> int:
        nonlocal low
        number, low = low % 2**width, low >> width
        return number

    row_class = stream([0] * rows, row_classes, 1) if row_classes > 1 else [0] * rows
    column_class = stream([0] * columns, column_classes, 1) if column_classes > 1 else [0] * columns
    gap_contexts, level_contexts, blocks = [], [], []
    for (a, b), k in kept.items():
        if k:
            in_rows = [r for r in range(rows) if row_class[r] == a]
            in_columns = [c for c in range(columns) if column_class[c] == b]
            cells = len(in_rows) * len(in_columns)
            shift = max((cells // k).bit_length() - 2, 0)
            blocks.append((in_rows, in_columns, k, shift))
            gap_contexts += [4 * cells // k // 2**shift - 4] * k
            level_contexts += [a + b] * k
    gaps = iter(stream(gap_contexts, gap_symbols, 12))
    places = []
    for in_rows, in_columns, k, shift in blocks:
        place = -1
        for _ in range(k):
            symbol = next(gaps)
            extra = 0 if symbol < 8 else symbol // 2 - 2
            base = symbol if symbol < 8 else (2 + symbol % 2) << extra
            number = take(extra + shift)
            place += 1 + (base << shift) + number
            places.append((in_rows[place // len(in_columns)], in_columns[place % len(in_columns)]))
    levels = [0] * len(places)
    if rungs > 1:
        levels = stream(level_contexts, rungs, row_classes + column_classes - 1)
    if not sign_classes:
        negative = [take(1) for _ in places]
    else:
        filled = sorted({row for row, _ in places})
        of_filled = [0] * len(filled)
        if sign_classes > 1:
            of_filled = stream([0] * len(filled), sign_classes, 1)
        sign_class = dict(zip(filled, of_filled, strict=True))
        negative = stream([sign_class[row] for row, _ in places], 2, sign_classes)
    coded.end()
    assert low == 0
    out = [0.0] * values
    for (row, column), level, minus in zip(places, levels, negative, strict=True):
        magnitude = 128 * (level + 1) - 64 + offsets[min(level, 3)]
        # A product of a 24-bit integer and a binary32 is exact in a double: rounding happens once.
        (value,) = struct.unpack("<f", struct.pack("<f", magnitude * scale))
        out[row * columns + column] = -value if minus else value
    return out
