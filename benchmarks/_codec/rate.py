"""Coded size over the order-0 entropy of what is sent, on real updates and on the same levels shuffled."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
from _result import Bar, at_most

from _codec.updates import RUNS, Update, real_updates
from laconic.compression import PRESETS, encode, entropies
from laconic.compression.frame import unwrap, wrap
from laconic.compression.plain import exact
from laconic.compression.stages import TensorPart
from laconic.compression.transforms.grid import GRID, GridPart, Kept
from laconic.compression.transforms.multiples import MOST, MULTIPLES, MultiplesPart, magnitudes_of
from laconic.compression.transforms.zero import ZERO
from laconic.schema import Vector

LEAST = 50_000
"""Values of an update from which on the bars hold."""

SAYING = 1_000
"""Bytes of entropy from which on a frame counts for the worst: of the others the envelope alone, 24 bytes, is
more than 2 %. An update of 200,000 values at preset "tiny" without components may be 60 bytes."""

CHOSEN = ("small", "tiny")
LIMIT = 100_000_000


def measure(pool: Executor) -> dict[str, Any]:
    """For each preset: the worst and the median, whole frames and the grid alone, real and structureless."""
    rows = [row for file in pool.map(_file, RUNS) for row in file]
    return {
        "updates": len({row["update"] for row in rows}),
        "summary": {f"{preset}, {what}": s for preset, what, s in _summaries(rows)},
        "grid_by_run": {preset: _by_run(rows, preset) for preset in CHOSEN},
        "rows": rows,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """On the grid's frames; a frame with components has other symbols, and is stated beside them."""
    made = []
    for preset in CHOSEN:
        real, shuffled = (found["summary"][f"{preset}, grid alone{s}"] for s in ("", ", structureless"))
        for which in ("all", "median", "worst"):
            name = f"rate, {preset}, grid alone: size / order-0 entropy, real updates, {which}"
            made.append(at_most(name, real[which], 0.75))
        for which in ("all", "median", "worst"):
            name = f"rate, {preset}: size / order-0 entropy, the same levels shuffled, {which}"
            made.append(at_most(name, shuffled[which], 1.05))
    return made


def _summaries(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for preset in CHOSEN:
        of = [row for row in rows if row["preset"] == preset]
        for what, key in (
            ("as sent", "as_sent"),
            ("grid alone", "grid"),
            ("grid alone, structureless", "structureless"),
        ):
            yield preset, what, _summary([(row["update"], row[key]) for row in of])


def _by_run(rows: Sequence[dict[str, Any]], preset: str) -> dict[str, float]:
    """Bytes of the grid's frames over their entropies: of each run with each optimizer, and each way."""
    sums: dict[str, tuple[float, float]] = {}
    for row in rows:
        if row["preset"] == preset:
            run, optimizer, _, who = row["update"].split("/")
            for group in (f"{run}/{optimizer}", "down" if who == "down" else "up"):
                size, entropy = sums.get(group, (0.0, 0.0))
                sums[group] = size + row["grid"]["bytes"], entropy + row["grid"]["entropy_bytes"]
    return {group: size / entropy for group, (size, entropy) in sums.items()}


def _summary(sizes: Sequence[tuple[str, dict[str, float]]]) -> dict[str, Any]:
    """`all`: bytes of all frames over their entropies; `worst`: of those with `SAYING` bytes of entropy."""
    ratio = {name: s["bytes"] / s["entropy_bytes"] for name, s in sizes}
    saying = [name for name, s in sizes if s["entropy_bytes"] >= SAYING]
    worst, worst_of_all = max(saying, key=ratio.__getitem__), max(ratio, key=ratio.__getitem__)
    return {
        "frames": len(sizes),
        "frames_saying_much": len(saying),
        "median": statistics.median(ratio.values()),
        "all": sum(s["bytes"] for _, s in sizes) / sum(s["entropy_bytes"] for _, s in sizes),
        "worst": ratio[worst],
        "worst_update": worst,
        "worst_of_any_length": ratio[worst_of_all],
        "worst_of_any_length_update": worst_of_all,
    }


def _file(name: str) -> list[dict[str, Any]]:
    return [
        _row(update, preset)
        for update in real_updates(name)
        if update.schema.size >= LEAST
        for preset in CHOSEN
    ]


def _row(update: Update, preset: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    as_sent = encode(update.target, update.schema, PRESETS[preset], rng)
    grid = encode(update.target, update.schema, replace(PRESETS[preset], low_rank=False), rng)
    return {
        "update": update.name,
        "preset": preset,
        "as_sent": {**_sizes(as_sent.frame), "error": as_sent.error},
        "grid": {**_sizes(grid.frame), "error": grid.error},
        "structureless": _sizes(shuffled(grid.frame, update, rng)),
    }


def _sizes(frame: bytes) -> dict[str, float]:
    return {"bytes": len(frame), "entropy_bytes": sum(entropies(frame, limit_bytes=LIMIT))}


def shuffled(frame: bytes, update: Update, rng: np.random.Generator) -> bytes:
    """A frame of grids with every section's levels at other positions, all equally likely, in another order.

    Order-0 entropy is as before; rows, columns and signs no longer tell anything.
    """
    schema = update.schema
    sections = unwrap(frame, schema).sections
    pool = [i for s in sections if len(s.tensors) > 1 for i in s.tensors]
    parts = []
    for section in sections:
        part = section.part
        if not isinstance(part, GridPart):
            values = np.zeros(section.values, np.float32)
            part.fill(values)
            parts.append(_of_all(rng.permutation(values), part))
            continue
        positions, values = part.entries()
        magnitudes = part.layout.steps.magnitudes()
        order = np.argsort(magnitudes)
        levels = order[np.searchsorted(magnitudes, np.abs(values), sorter=order)] + 1
        levels = rng.permutation(np.where(values < 0, -levels, levels))
        places = np.sort(rng.choice(section.values, positions.size, replace=False))
        written = GRID.write(
            Kept(section.values, places, levels.astype(np.int16)), part.layout.columns, part.layout.steps
        )
        if written is None:
            raise RuntimeError(f"{update.name}: shuffled levels of tensors {section.tensors} are no grid")
        parts.append(written)
    return wrap(schema, pool, parts)


def _of_all(values: Vector, part: TensorPart) -> bytes:
    """A section of every value: nothing, multiples of a step where they were that, or float32."""
    if not values.any():
        return ZERO.write()
    if not isinstance(part, MultiplesPart):
        return exact(values)
    magnitudes = magnitudes_of(np.arange(MOST + 1), part.steps)
    levels = np.copysign(np.searchsorted(magnitudes, np.abs(values)), values).astype(np.int64)
    written = MULTIPLES.write(levels, part.columns, part.steps)
    return exact(values) if written is None else written
