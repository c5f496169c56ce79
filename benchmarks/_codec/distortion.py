"""Bytes at equal relative L2 error, next to STC, top-k, 8 and 4 bits, and MPEG's NNC; time next to NNC."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np
from _environments import Environment
from _result import Bar, at_least, at_most

from _codec import nnc, peers
from _codec.updates import RUNS, Update, real_updates
from laconic.compression import PRESETS, decode, encode, rate
from laconic.compression.selection import root_mean_square
from laconic.compression.settings import CodecSettings

ERRORS = (0.2, 0.4, 0.6, 0.8)

ROUND = 9
WHO = ("device0", "down")
"""Of each run, one device's update and the coordinator's: 24 vectors."""

DENSE_LAYERS = ("digits", "mlp")
"""Tasks whose models are nearly all dense layers: 96 % of the digits CNN's values, all of the MLP's."""

SWEEP = tuple(s for s in nnc.SWEEP if s.qp % 2 == 0)
"""Every second step of NNC's, a factor of 1.4 apart: the product is given the error that NNC reaches."""

TURNS = 5
LIMIT = 100_000_000

PEERS = ("STC", "top-k 4-bit, zstd", "8-bit, zstd", "4-bit, zstd", "NNC")


def measure(pool: Executor) -> dict[str, Any]:
    """For each update and peer: both sizes at each error; processor time of both ways."""
    home = nnc.nnc_environment()
    if home.trouble:
        print(f"bench: no nncodec: {home.trouble}", file=sys.stderr)
    names = list(RUNS)
    rows = [row for file in pool.map(_file, names, [not home.trouble] * len(names)) for row in file]
    return {
        "nncodec": home.trouble or nnc.NNCODEC,
        "worst": {peer: _worst(rows, peer) for peer in PEERS},
        "lost": {peer: sum(r > 1 for r in _ratios(rows, peer)) for peer in PEERS},
        "compared": {peer: len(_ratios(rows, peer)) for peer in PEERS},
        "median": {peer: statistics.median(r) for peer in PEERS if (r := _ratios(rows, peer))},
        "dense_layers_nnc": [
            r["ratio"]
            for r in rows
            if r["peer"] == "NNC" and r["task"] in DENSE_LAYERS and r["ratio"] is not None
        ],
        "times_nncs_speed": {
            how: [row["seconds"]["NNC"] / row["seconds"][how] for row in rows if "seconds" in row]
            for how in ("same error", "fast")
        },
        "rows": rows,
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """A ratio is our bytes over theirs. A peer that was not measured has failed."""
    missing = {"ratio": float("inf")}
    made = [
        at_most(f"distortion: bytes / {peer}'s at equal error, worst", (w or missing)["ratio"], 1.0)
        for peer, w in found["worst"].items()
    ]
    nncs = found["dense_layers_nnc"] or [float("inf")]
    made.append(at_most("distortion: bytes / NNC's, models of dense layers, worst", max(nncs), 0.5))
    made.append(
        at_most("distortion: bytes / NNC's, models of dense layers, median", statistics.median(nncs), 0.5)
    )
    for how, times in found["times_nncs_speed"].items():
        fast = statistics.median(times) if times else 0.0
        what = "at its error, without search" if how == "same error" else f"preset {how}"
        made.append(at_least(f"distortion: times NNC's speed, encoding and decoding, {what}", fast, 30))
    return made


def _ratios(rows: list[dict[str, Any]], peer: str) -> list[float]:
    return [r["ratio"] for r in rows if r["peer"] == peer and r["ratio"] is not None]


def _worst(rows: list[dict[str, Any]], peer: str) -> dict[str, Any] | None:
    of = [r for r in rows if r["peer"] == peer and r["ratio"] is not None]
    return max(of, key=lambda r: float(r["ratio"])) if of else None


def _file(name: str, with_nnc: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for update in real_updates(name):
        _, _, number, who = update.name.split("/")
        if int(number) == ROUND and who in WHO:
            rows += _update(update, with_nnc)
    return rows


def _update(update: Update, with_nnc: bool) -> list[dict[str, Any]]:
    """A row for each peer and error: what the peer reaches, and what the product needs for as much."""
    print(f"bench: distortion, {update.name}", file=sys.stderr)
    target, schema = update.target, update.schema
    task = RUNS[update.name.split("/")[0]][0]
    product: dict[float, Any] = {}

    def row(peer: str, wanted: float | None, point: peers.Point | None, ours_at: float) -> dict[str, Any]:
        made: dict[str, Any] = {
            "update": update.name,
            "task": task,
            "peer": peer,
        }
        made |= {"wanted": wanted, "ratio": None}
        if point is None:
            # No setting of the peer's reaches the error.
            return made
        if ours_at not in product:
            product[ours_at] = encode(
                target, schema, PRESETS["small"], np.random.default_rng(0), max_error=ours_at
            )
        ours = product[ours_at]
        size, error = len(ours.frame), ours.error
        return made | {
            "bytes": size,
            "error": error,
            "peer_bytes": point.bytes,
            "peer_error": point.error,
            "ratio": size / point.bytes,
        }

    rows = []
    searched: dict[str, Callable[[float], peers.Point | None]] = {
        "STC": lambda e: peers.stc_at(target, e),
        "top-k 4-bit, zstd": lambda e: peers.top_k_at(target, e),
    }
    for peer, at in searched.items():
        rows += [row(peer, e, at(e), e) for e in ERRORS]
    for peer, bits in (("8-bit, zstd", 8), ("4-bit, zstd", 4)):
        point = peers.dense(target, schema, bits)
        rows.append(row(peer, None, point, min(point.error, 0.999)))
    if with_nnc:
        home = nnc.nnc_environment()
        arrays = {
            t.name: target[s].reshape(t.shape) for t, s in zip(schema.tensors, schema.slices, strict=True)
        }
        swept = nnc.coded(home, arrays, SWEEP)
        for e in ERRORS:
            best = nnc.smallest(swept, e)
            point = peers.Point(best.bytes, best.relative_error)
            rows.append(row("NNC", e, point, best.relative_error))
        best = nnc.smallest(swept, ERRORS[1])
        rows[-1]["seconds"] = _seconds(update, home, arrays, best)
    return rows


def _seconds(update: Update, home: Environment, arrays: nnc.Arrays, best: nnc.Coded) -> dict[str, float]:
    """Processor seconds to encode and decode: NNC at one setting, ours at a step as fine, and preset fast."""
    again = nnc.coded(home, arrays, [best.setting] * TURNS)
    task = rate.Task(update.target, update.schema, PRESETS["small"], (1.0,) * len(update.schema.tensors), {})
    step = rate.plan(task, budget_bytes=None, max_error=best.relative_error).step
    settings = CodecSettings(step_rms=max(0.01, step / root_mean_square(update.target)))
    return {
        "error": best.relative_error,
        "NNC": statistics.median(c.encode_s + c.decode_s for c in again),
        "same error": _ours(update, settings),
        "fast": _ours(update, PRESETS["fast"]),
    }


def _ours(update: Update, settings: CodecSettings) -> float:
    """As on a device: with what the encoder remembers of the last update."""
    rng = np.random.default_rng(0)
    memory = encode(update.target, update.schema, settings, rng, seed=1).memory
    seconds = []
    for _ in range(TURNS):
        began = time.process_time()
        encoded = encode(update.target, update.schema, settings, rng, memory=memory, seed=1)
        decode(encoded.frame, update.schema, limit_bytes=LIMIT)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)
