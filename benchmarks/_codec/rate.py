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
from laconic.compression.transforms.grid import GRID, GridPart, Kept
from laconic.compression.transforms.zero import ZERO

LEAST = 50_000
"""Values of an update from which on the bars hold."""

CHOSEN = ("small", "tiny")
LIMIT = 100_000_000


def measure(pool: Executor) -> dict[str, Any]:
    """For each preset: the worst and the median, whole frames and the grid alone, real and structureless."""
    rows = [row for file in pool.map(_file, RUNS) for row in file]
    return {
        "updates": len({row["update"] for row in rows}),
        "summary": {f"{preset}, {what}": s for preset, what, s in _summaries(rows)},
        "rows": rows,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """On the grid's frames; a frame with components has other symbols, and is stated beside them."""
    made = []
    for preset in CHOSEN:
        real, shuffled = (found["summary"][f"{preset}, grid alone{s}"] for s in ("", ", structureless"))
        for which in ("median", "worst"):
            name = f"rate, {preset}, grid alone: size / order-0 entropy, real updates, {which}"
            made.append(at_most(name, real[which], 0.75))
        for which in ("median", "worst"):
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
            ratios = [row[key]["bytes"] / row[key]["entropy_bytes"] for row in of]
            worst = max(range(len(of)), key=lambda i: ratios[i])
            yield (
                preset,
                what,
                {
                    "median": statistics.median(ratios),
                    "worst": ratios[worst],
                    "worst_update": of[worst]["update"],
                },
            )


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
            parts.append(exact(values) if values.any() else ZERO.write())
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
