"""Codecs for federated runs: the product's settings, schedules, and what they are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from _codec.federation import Codec, Sent, State
from laconic.compression import PRESETS, CodecSettings, decode, encode
from laconic.compression.bits import pack, packed_size, unpack
from laconic.compression.selection import largest
from laconic.schema import Schema, Vector


def product(settings: CodecSettings) -> Codec:
    """`laconic.compression.encode` with `settings`, and what `decode` makes of its frame.

    What the encoder remembers is kept between rounds; shared positions follow from the round's number.
    """

    def codec(target: Vector, schema: Schema, number: int, state: State, rng: np.random.Generator) -> Sent:
        encoded = encode(target, schema, settings, rng, memory=state.get("memory"), seed=number)
        state["memory"] = encoded.memory
        return Sent(len(encoded.frame), decode(encoded.frame, schema, limit_bytes=4 * schema.size))

    return codec


def scheduled(choose: Callable[[int], Codec]) -> Codec:
    """The codec that `choose` gives for a round, counted from 1."""

    def codec(target: Vector, schema: Schema, number: int, state: State, rng: np.random.Generator) -> Sent:
        return choose(number)(target, schema, number, state, rng)

    return codec


def stepped(step: Callable[[int], float], settings: CodecSettings = PRESETS["small"]) -> Codec:
    """The dead zone with a step (over RMS) that depends on the round."""
    return scheduled(lambda number: product(replace(settings, kind="deadzone", step_rms=step(number))))


def stc(density: float) -> Codec:
    """Sparse ternary compression: the largest magnitudes, all at their mean, positions in Golomb's code.

    Sattler et al., "Robust and Communication-Efficient Federated Learning from Non-IID Data", IEEE TNNLS
    2020, algorithms 1 and 3.
    """

    def codec(target: Vector, schema: Schema, number: int, state: State, rng: np.random.Generator) -> Sent:
        frame = stc_encode(target, density)
        return Sent(len(frame), stc_decode(frame, schema.size))

    return codec


def stc_encode(target: Vector, density: float) -> bytes:
    """`target`, float32 `(n,)`, as: count u32, mean magnitude f32, length of the unary part u32, the unary
    part of the gaps, their low bits, signs."""
    places = largest(target, round(density * target.size))
    mean = np.float32(np.abs(target[places]).mean()) if places.size else np.float32(0)
    gaps = np.diff(places, prepend=-1) - 1
    shift = _golomb_shift(density)
    ends = np.cumsum((gaps >> shift) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1 if places.size else 0, np.uint8)
    unary[ends] = 1
    head = np.array([places.size, unary.size, shift], "<u4").tobytes() + mean.tobytes()
    low = [((gaps >> bit) & 1).astype(np.uint8) for bit in range(shift)]
    streams = [unary, *low, (target[places] < 0).astype(np.uint8)]
    return head + pack(np.concatenate(streams), 1)


def stc_decode(frame: bytes, size: int) -> Vector:
    """The inverse of `stc_encode`."""
    count, length, shift = np.frombuffer(frame, "<u4", 3).tolist()
    mean = np.frombuffer(frame, "<f4", 1, 12)[0]
    total = length + count * (shift + 1)
    bits = unpack(memoryview(frame)[16 : 16 + packed_size(total, 1)], total, 1)
    gaps = (np.diff(np.flatnonzero(bits[:length]), prepend=-1) - 1) << shift
    for bit in range(shift):
        start = length + bit * count
        gaps += bits[start : start + count].astype(np.int64) << bit
    out = np.zeros(size, np.float32)
    out[np.cumsum(gaps + 1) - 1] = np.where(bits[length + shift * count :], -mean, mean)
    return out


def _golomb_shift(density: float) -> int:
    """The low bits of a gap that make the code shortest (equation 17 there)."""
    golden = (math.sqrt(5) + 1) / 2
    return max(0, 1 + math.floor(math.log2(math.log(golden - 1) / math.log1p(-density))))


BASELINES: Mapping[str, Codec] = MappingProxyType(
    {
        "float32": product(PRESETS["exact"]),
        "8-bit": product(CodecSettings(kind="dense", bits=8, small_tensor_values=64)),
        "4-bit": product(CodecSettings(kind="dense", bits=4, small_tensor_values=64)),
        "top 1 % 4-bit": product(CodecSettings(kind="topk", density=0.01, bits=4, small_tensor_values=64)),
        "STC 1 %": stc(0.01),
        "STC 1/400": stc(1 / 400),
    }
)
"""What the codec is compared with; all but float32 are meant for error feedback.

The 8- and 4-bit ones are coded by whatever coder of the product is shortest, so never longer than by zstd.
"""
