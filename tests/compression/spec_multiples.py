"""Transform 07 as the specification has it: slow, plain, and trusting its input."""

from __future__ import annotations

import struct

from spec_grid import BodyOf, Bytes


def multiples(frame: Bytes, values: int, body_of: BodyOf) -> list[float]:
    columns = frame.varint() or values
    rows = values // columns
    classes = frame.u8()
    row_classes, column_classes = classes % 16 + 1, classes // 16 + 1
    signs_and_offsets = frame.u8()
    sign_classes, listed = signs_and_offsets % 16, signs_and_offsets // 16
    alphabet = frame.u8()
    (scale,) = struct.unpack("<f", b"\0\0" + frame.bytes(2))
    offsets = [*frame.bytes(listed), 64, 64, 64, 64][:4]
    body = body_of(frame.bytes(frame.varint()))
    low = int.from_bytes(frame.bytes(frame.varint()), "little")

    def take(width: int) -> int:
        nonlocal low
        number, low = low % 2**width, low >> width
        return number

    row_class = body.stream([0] * rows, row_classes, 1) if row_classes > 1 else [0] * rows
    column_class = body.stream([0] * columns, column_classes, 1) if column_classes > 1 else [0] * columns
    contexts = [a + b for a in row_class for b in column_class]
    tokens = body.stream(contexts, alphabet, row_classes + column_classes - 1)
    levels = []
    for token in tokens:
        extra = 0 if token < 8 else token // 2 - 2
        base = token if token < 8 else (2 + token % 2) << extra
        levels.append(base + take(extra))
    sent = [i for i, level in enumerate(levels) if level]
    if not sign_classes:
        negative = [take(1) for _ in sent]
    else:
        filled = sorted({i // columns for i in sent})
        of_filled = [0] * len(filled)
        if sign_classes > 1:
            of_filled = body.stream([0] * len(filled), sign_classes, 1)
        sign_class = dict(zip(filled, of_filled, strict=True))
        negative = body.stream([sign_class[i // columns] for i in sent], 2, sign_classes)
    body.end()
    assert low == 0
    out = [0.0] * values
    for i, minus in zip(sent, negative, strict=True):
        magnitude = 128 * levels[i] - 64 + offsets[min(levels[i], 4) - 1]
        # A product of a 24-bit integer and a binary32 is exact in a double: rounding happens once.
        (value,) = struct.unpack("<f", struct.pack("<f", magnitude * scale))
        out[i] = -value if minus else value
    return out
