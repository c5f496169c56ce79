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

    def stream(
        self, contexts: list[int], alphabet: int, contexts_count: int, prior: list[list[int]] | None = None
    ) -> list[int]: ...
    def end(self) -> None: ...


class BodyOf(Protocol):
    def __call__(self, data: bytes) -> Body: ...


RATIO = (7282, 17873, 25206, 30583, 40933, 43264, 45248, 46957, 48444, 49749, 50904, 51933)
ROOT = (65536, 60097, 55109, 50535, 46341, 42495, 38968, 35734)
NEGATIVE = {
    1: (32,),
    2: (13, 51),
    3: (3, 32, 61),
    5: (1, 11, 32, 53, 63),
    9: (1, 4, 11, 20, 32, 44, 53, 60, 63),
}


def symbol_of(shifted: int) -> int:
    symbol = 0
    while base(symbol + 1) <= shifted:
        symbol += 1
    return symbol


def base(symbol: int) -> int:
    return symbol if symbol < 8 else (2 + symbol % 2) << (symbol // 2 - 2)


def gap_prior(alphabet: int) -> list[list[int]]:
    rows = []
    for ratio in RATIO:
        left, row = 2**19, []
        for s in range(alphabet):
            if s in range(8, 84, 2):
                ratio = ratio * ratio // 65536
            row.append(max(left - left * ratio // 65536, 1))
            left = left * ratio // 65536
        rows.append(row)
    return rows


def level_prior(rungs: int, kept: int) -> list[int]:
    e = min(max(8 * max(kept.bit_length() - 3, 1) // (rungs - 1), 1), 40)
    ratio = ROOT[e % 8] >> e // 8
    weight, row = 8192, []
    for _ in range(rungs):
        row.append(max(weight, 1))
        weight = weight * ratio // 65536
    return row


def grid(frame: Bytes, values: int, body_of: BodyOf) -> list[float]:
    kind = frame.u8()
    sign_classes, listed = (0, 1, 2, 3, 5, 9)[kind % 8], kind // 8 % 8
    classes = frame.u8() if kind & 128 else 0
    row_classes, column_classes = classes % 8 + 1, classes // 8 % 8 + 1
    columns = (frame.varint() or values) if kind & 128 or sign_classes > 1 else values
    rows = values // columns
    (scale,) = struct.unpack("<f", b"\0\0" + frame.bytes(2))
    rungs = frame.u8() if kind & 64 else 1
    offsets = [*frame.bytes(listed), 64, 64, 64, 64][:4]
    kept = {}
    for a in range(row_classes):
        for b in range(column_classes):
            skipped = (a == 0 and classes & 64) or (b == 0 and classes & 128)
            kept[a, b] = 0 if skipped else frame.varint()
    total = sum(kept.values())
    coded = body_of(frame.bytes(frame.varint()))
    known = 0 if sign_classes else total
    if not kind & 128:
        known += total * max((values // total).bit_length() - 2, 0)
    low = int.from_bytes(frame.bytes((known + 7) // 8 + frame.varint()), "little")

    def stream(
        contexts: list[int], alphabet: int, contexts_count: int, prior: list[list[int]] | None = None
    ) -> list[int]:
        count = len(contexts)
        length = (count + 31) // 32
        order = [i for j in range(length) for i in range(j, 32 * length, length) if i < count]
        dealt = coded.stream([contexts[i] for i in order], alphabet, contexts_count, prior)
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
    gap_contexts, level_contexts, blocks, longest = [], [], [], 0
    for (a, b), k in kept.items():
        if k:
            in_rows = [r for r in range(rows) if row_class[r] == a]
            in_columns = [c for c in range(columns) if column_class[c] == b]
            cells = len(in_rows) * len(in_columns)
            shift = max((cells // k).bit_length() - 2, 0)
            blocks.append((in_rows, in_columns, k, shift))
            longest = max(longest, symbol_of(cells - k >> shift))
            gap_contexts += [4 * cells // k // 2**shift - 4] * k
            level_contexts += [a + b] * k
    gaps = iter(stream(gap_contexts, longest + 1, 12, gap_prior(longest + 1)))
    places = []
    for in_rows, in_columns, k, shift in blocks:
        place = -1
        for _ in range(k):
            symbol = next(gaps)
            extra = 0 if symbol < 8 else symbol // 2 - 2
            number = take(extra + shift)
            place += 1 + (base(symbol) << shift) + number
            places.append((in_rows[place // len(in_columns)], in_columns[place % len(in_columns)]))
    levels = [0] * len(places)
    if rungs > 1:
        contexts_count = row_classes + column_classes - 1
        prior = [level_prior(rungs, total)] * contexts_count
        levels = stream(level_contexts, rungs, contexts_count, prior)
    if not sign_classes:
        negative = [take(1) for _ in places]
    else:
        filled = sorted({row for row, _ in places})
        of_filled = [0] * len(filled)
        if sign_classes > 1:
            of_filled = stream([0] * len(filled), sign_classes, 1)
        sign_class = dict(zip(filled, of_filled, strict=True))
        prior = [[64 * (64 - m), 64 * m] for m in NEGATIVE[sign_classes]]
        negative = stream([sign_class[row] for row, _ in places], 2, sign_classes, prior)
    coded.end()
    assert low == 0
    out = [0.0] * values
    for (row, column), level, minus in zip(places, levels, negative, strict=True):
        magnitude = 128 * (level + 1) - 64 + offsets[min(level, 3)]
        # A product of a 24-bit integer and a binary32 is exact in a double: rounding happens once.
        (value,) = struct.unpack("<f", struct.pack("<f", magnitude * scale))
        out[row * columns + column] = -value if minus else value
    return out
