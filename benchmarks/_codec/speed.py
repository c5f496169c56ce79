"""Ten million values on one core: encoding, decoding with folding, next to zstd and to a copy of memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import zstandard
from _result import Bar, at_least

from _codec.updates import real_updates
from laconic.compression import PRESETS, encode, pieces
from laconic.coordinator.fold import Fold
from laconic.schema import Schema, TensorSpec, Vector

VALUES = 10_000_000
TURNS = 5
WIDER = 7
WEIGHT = 64
ENCODING = {"fast": 0.5, "tiny": 0.1}
"""Gigabytes of float32 a second that a preset must reach."""
FOLDING = 1.0

Timed = Mapping[str, Callable[[], object]]


def measure() -> dict[str, Any]:
    """Gigabytes of float32 a second of processor time, for each update."""
    return {name: _update(*make()) for name, make in UPDATES.items()}


def bars(found: dict[str, Any]) -> list[Bar]:
    """For each update and preset, encoding, and decoding with folding."""
    made = []
    for name, rates in found.items():
        for preset, limit in ENCODING.items():
            speed = rates["gb_per_s"][f"encode {preset}"]
            made.append(at_least(f"speed, {name}: GB/s to encode, preset {preset}", speed, limit))
        for preset in ENCODING:
            speed = rates["gb_per_s"][f"decode and fold {preset}"]
            made.append(at_least(f"speed, {name}: GB/s to decode and fold, preset {preset}", speed, FOLDING))
    return made


def _update(vector: Vector, schema: Schema) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    limit = 4 * schema.size
    raw = vector.tobytes()
    packed = zstandard.ZstdCompressor(level=1).compress(raw)
    copy, fold = np.empty_like(vector), Fold(schema.size)
    # As on a device and a coordinator: what the encoder remembers is there from the second round on.
    first = {p: encode(vector, schema, PRESETS[p], rng) for p in ENCODING}
    frames = {p: e.frame for p, e in first.items()}
    works: dict[str, Callable[[], object]] = {
        "memcpy": lambda: np.copyto(copy, vector),
        "zstd 1 compress": lambda: zstandard.ZstdCompressor(level=1).compress(raw),
        "zstd 1 decompress": lambda: zstandard.ZstdDecompressor().decompress(packed, max_output_size=limit),
    }

    def take(frame: bytes) -> None:
        parts = list(pieces(frame, schema, limit_bytes=limit))
        fold.check(parts, WEIGHT)
        fold.add(parts, WEIGHT)

    for p in ENCODING:
        works[f"encode {p}"] = partial(encode, vector, schema, PRESETS[p], rng, memory=first[p].memory)
        works[f"decode and fold {p}"] = partial(take, frames[p])
    speeds = {name: limit / 1e9 / seconds for name, seconds in _in_turns(works).items()}
    ours = [n for n in speeds if n.startswith(("encode", "decode"))]
    return {
        "values": schema.size,
        "bytes": {p: len(frame) for p, frame in frames.items()} | {"zstd 1": len(packed)},
        "error": {p: e.error for p, e in first.items()},
        "gb_per_s": speeds,
        "times_zstd_1": {
            n: speeds[n] / speeds["zstd 1 compress" if n.startswith("encode") else "zstd 1 decompress"]
            for n in ours
        },
        "times_memcpy": {n: speeds[n] / speeds["memcpy"] for n in ours},
    }


def _in_turns(works: Timed) -> dict[str, float]:
    """Median processor seconds of each; in turns, so that all see the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(TURNS + 1):
        for name, work in works.items():
            began = time.process_time()
            work()
            if turn:
                # The first turn touches memory for the first time.
                seconds[name].append(time.process_time() - began)
    return {name: statistics.median(s) for name, s in seconds.items()}


def _synthetic() -> tuple[Vector, Schema]:
    """Five matrices of four directions each, heavy-tailed noise of a third of their norm, 30 % dead rows."""
    rng = np.random.default_rng(0)
    shapes = [(2048, 2048), (2048, 1024), (1024, 1024), (1024, 1024), (1024, 1600)]
    specs, parts = [], []
    for i, (rows, columns) in enumerate(shapes):
        left, right = rng.standard_normal((rows, 4)), rng.standard_normal((4, columns))
        matrix = left * [8.0, 4.0, 2.0, 1.0] @ right
        noise = rng.standard_t(3, matrix.shape)
        matrix += noise * (np.linalg.norm(matrix) / np.linalg.norm(noise) / 3)
        matrix[rng.random(rows) < 0.3] = 0
        parts += [1e-4 * matrix.astype(np.float32).ravel(), 1e-4 * rng.standard_t(3, rows).astype(np.float32)]
        specs += [TensorSpec(f"l{i}.weight", (rows, columns)), TensorSpec(f"l{i}.bias", (rows,))]
    schema = Schema(tuple(specs))
    return np.concatenate(parts).astype(np.float32), schema


def _wide() -> tuple[Vector, Schema]:
    """An update of the digits CNN as of a model seven times as wide: eight tensors.

    Every matrix is its Kronecker product with a matrix of rank 1, so that its rank and its dead rows remain.
    """
    update = next(u for u in real_updates("digits-90") if u.name == "digits-90/sgd/9/device0")
    rng = np.random.default_rng(0)
    specs, parts = [], []
    for tensor, where in zip(update.schema.tensors, update.schema.slices, strict=True):
        axes = tensor.shape
        over = (WIDER, *[WIDER] * (len(axes) > 1), *[1] * (len(axes) - 2))
        factors = [
            rng.lognormal(0, 0.5, count).reshape([-1 if a == i else 1 for a in range(len(axes))])
            for i, count in enumerate(over)
        ]
        factor = np.prod(np.broadcast_arrays(*factors), axis=0)
        parts.append(np.kron(factor, update.target[where].reshape(axes)).astype(np.float32).ravel())
        specs.append(TensorSpec(tensor.name, tuple(a * n for a, n in zip(axes, over, strict=True))))
    return np.concatenate(parts), Schema(tuple(specs))


def _tiled() -> tuple[Vector, Schema]:
    """Updates of the digits CNN, of many rounds and devices, one after the other: 384 tensors."""
    found = [u for u in real_updates("digits-90") if "/sgd/" in u.name]
    copies = VALUES // found[0].schema.size
    chosen = [found[i % len(found)] for i in range(copies)]
    specs = tuple(
        TensorSpec(f"{i}.{t.name}", t.shape) for i, u in enumerate(chosen) for t in u.schema.tensors
    )
    return np.concatenate([u.target for u in chosen]), Schema(specs)


UPDATES: Mapping[str, Callable[[], tuple[Vector, Schema]]] = {
    "synthetic": _synthetic,
    "real, wide": _wide,
    "real, many": _tiled,
}
