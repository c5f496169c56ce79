"""`laconic codec inspect`: what a frame consists of, and how near each section comes to its entropy."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from laconic.compression import FrameInfo, entropies, inspect
from laconic.config import read_file
from laconic.errors import ConfigError
from laconic.schema import Schema

LIMIT_BYTES = 1 << 30
"""Largest dense size of a frame that is decompressed for its entropy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `laconic codec`."""
    parser.add_argument("action", choices=("inspect",), help="explain an update frame or a full model")
    parser.add_argument("frame", type=Path, metavar="FRAME", help="the frame's file")
    parser.add_argument("--bundle", type=Path, help="the bundle it belongs to: names its tensors")


def run(options: argparse.Namespace) -> int:
    """Print a line for each section of the frame; returns the exit code."""
    frame = read_file(options.frame, "frame")
    info = inspect(frame)
    entropy_bytes = entropies(frame, limit_bytes=LIMIT_BYTES)
    names = _names(_schema(options.bundle, info) if options.bundle else None, info)
    if options.json:
        print(json.dumps(_as_json(info, entropy_bytes, names)))
    else:
        _print(info, entropy_bytes, names)
    return 0


def _schema(path: Path, info: FrameInfo) -> Schema:
    from laconic.runtime.bundle import Bundle

    schema = Bundle.read(read_file(path, "bundle")).schema
    if schema.digest != info.schema_digest:
        raise ConfigError(
            "schema of the bundle",
            value=schema.digest.hex(),
            limit=info.schema_digest.hex(),
            remedy="give the bundle that the frame belongs to",
        )
    return schema


def _names(schema: Schema | None, info: FrameInfo) -> list[str]:
    """What each section holds, in words; tensors without a schema have numbers."""
    names = []
    for section in info.sections:
        known = [schema.tensors[i].name if schema else f"tensor {i}" for i in section.tensors]
        names.append(known[0] if len(known) == 1 else f"{len(known)} tensors: {', '.join(known)}")
    return names


def _as_json(info: FrameInfo, entropy_bytes: tuple[float, ...], names: list[str]) -> dict[str, object]:
    return {
        "version": info.version,
        "schema_digest": info.schema_digest.hex(),
        "values": info.values,
        "bytes": info.bytes,
        "ratio": info.ratio,
        "bits_per_value": info.bits_per_value,
        "sections": [
            {
                "name": name,
                "tensors": s.tensors,
                "values": s.values,
                "stages": s.stages,
                "params": dict(s.params),
                "bytes": s.bytes,
                "share": s.share,
                "bits_per_value": s.bits_per_value,
                "entropy_bytes": entropy,
            }
            for s, entropy, name in zip(info.sections, entropy_bytes, names, strict=True)
        ],
    }


def _print(info: FrameInfo, entropy_bytes: tuple[float, ...], names: list[str]) -> None:
    print(
        f"update frame, version {info.version}: {info.values:,} values in {info.bytes:,} bytes, "
        f"{info.bits_per_value:.3f} bits a value, {info.ratio:.1f}x smaller than float32"
    )
    print(f"{'values':>10} {'bytes':>9} {'share':>6} {'bits':>7} {'of entropy':>10}  tensor: stages")
    for s, entropy, name in zip(info.sections, entropy_bytes, names, strict=True):
        of_entropy = f"{s.bytes / entropy:10.2f}" if entropy else f"{'-':>10}"
        params = ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in s.params.items()
        )
        print(
            f"{s.values:>10,} {s.bytes:>9,} {s.share:>6.1%} {s.bits_per_value:>7.3f} {of_entropy}  "
            f"{name}: {' + '.join(s.stages)}" + (f" ({params})" if params else "")
        )
