"""The command `laconic prepare`: reads what was asked on the command line, then plans, explains, checks,
writes."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from laconic.config import read_file
from laconic.errors import ConfigError
from laconic.exit_codes import CHECK, OK
from laconic.runtime import Bundle

LARGEST_BATCH = 2**20
"""For `--explain`: shape inference computes some tensors, which takes longer and longer beyond this."""

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `laconic prepare` understands."""
    add = parser.add_argument
    add("model", type=Path, help="the ONNX model")
    add("-o", "--output", type=Path, help="the bundle to write")
    add(
        "--loss",
        nargs="+",
        action="append",
        metavar=("[OUTPUT:]NAME", "SETTING=VALUE"),
        help="cross_entropy (default), binary_cross_entropy, mse, mae, huber, model_output; repeatable",
    )
    add(
        "--optimizer",
        nargs="+",
        metavar=("NAME", "SETTING=VALUE"),
        help="sgd (default), momentum, adam, adamw",
    )
    add("--clip-norm", type=float, metavar="NORM", help="bound on the norm of all gradients together")
    add("--proximal", action="store_true", help="build in the pull of FedProx")
    add("--scaffold", action="store_true", help="build in the control variates of SCAFFOLD (with sgd only)")
    for name, meaning in (
        ("trainable", "shell patterns of the weights that train; all others are frozen"),
        ("frozen", "of weights that stay as they are"),
        ("local", "of weights that are trained, but never leave the device"),
    ):
        add(f"--{name}", nargs="+", action="extend", metavar="PATTERN", help=meaning)
    add(
        "--lora",
        nargs="+",
        metavar=("SETTING=VALUE", "PATTERN"),
        help="train low-rank adapters of the weights that match, as in: --lora rank=4 'encoder.*'",
    )
    add(
        "--input-shape",
        action="append",
        metavar="INPUT=D,D,...",
        help="shape of one sample of an input, where the model leaves it open",
    )
    add(
        "--external-data",
        action="append",
        type=Path,
        metavar="FILE",
        help="a file with weights that the model refers to",
    )
    add("--explain", action="store_true", help="show what trains and what it costs")
    add("--check", action="store_true", help="compare the gradients with central differences in float64")
    add("--batch", type=int, default=8, help="samples in a step, for --explain (default 8)")


def run(options: argparse.Namespace) -> int:
    """Do it; 0 if all went well, 1 if a gradient failed its check."""
    try:
        from laconic import training
        from laconic.training import check, explain
    except ModuleNotFoundError as e:
        raise ConfigError(
            f"{e.name} is not installed", remedy="pip install 'laconic[training]' where models are prepared"
        ) from e
    if options.output is None and not (options.explain or options.check):
        raise ConfigError("nothing to do", remedy="name a bundle with -o, or ask to --explain or --check")
    if not 1 <= options.batch <= LARGEST_BATCH:
        raise ConfigError("--batch", value=options.batch, limit=f"1 to {LARGEST_BATCH}")
    plan = training.plan(read_file(options.model, "model"), **_arguments(options))
    facts: dict[str, Any] = {}
    code = OK
    if options.explain:
        found = training.explained(plan, batch=options.batch)
        facts["explained"] = asdict(found)
        _say(options, explain.lines(found))
    if options.check:
        results = training.check_gradients(plan)
        facts["check"] = [asdict(r) | {"ok": r.ok} for r in results]
        code = OK if all(r.ok for r in results) else CHECK
        _say(options, check.lines(results))
    if options.output is not None:
        facts |= _write(options, training.bundle(plan))
    if options.json:
        print(json.dumps(facts))
    return code


def _write(options: argparse.Namespace, data: bytes) -> dict[str, Any]:
    try:
        options.output.write_bytes(data)
    except OSError as e:
        raise ConfigError(
            f"cannot write the bundle {options.output} ({e.strerror})", remedy="check the path of -o"
        ) from e
    bundle = Bundle.read(data)
    tensors = bundle.schema.tensors
    text = [f"{options.output}: {bundle.schema.size:,} parameters in {len(tensors)} tensors"]
    if not options.explain:
        text += [f"  {t.name:30} {'x'.join(map(str, t.shape)) or 'scalar'}" for t in tensors]
    _say(options, [*text, f"{len(data):,} bytes, sha256 {bundle.hash}"])
    return {
        "bundle": str(options.output),
        "hash": bundle.hash,
        "bytes": len(data),
        "parameters": bundle.schema.size,
        "tensors": [{"name": t.name, "shape": list(t.shape)} for t in tensors],
    }


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What `laconic.training.plan` takes."""
    from laconic.training.losses import LOSSES
    from laconic.training.optimizers import OPTIMIZERS

    losses: dict[str, Any] = {}
    for name, *settings in options.loss or [["cross_entropy"]]:
        output, _, kind = name.rpartition(":")
        weighed = [text for text in settings if text.partition("=")[0] == "weight"]
        weight = _settings("--loss", weighed, {"weight": 1.0}).get("weight", 1.0)
        if output in losses:
            raise ConfigError("--loss", value=name, remedy="name the output of each loss: OUTPUT:NAME")
        losses[output] = (
            _made("--loss", LOSSES, kind, [text for text in settings if text not in weighed]),
            weight,
        )
    if len(losses) == 1 and "" in losses and losses[""][1] == 1.0:
        loss: Any = losses[""][0]
    else:
        loss = losses
    name, *settings = options.optimizer or ["sgd"]
    arguments: dict[str, Any] = {
        "loss": loss,
        "optimizer": _made("--optimizer", OPTIMIZERS, name, settings),
        "proximal": options.proximal,
        "scaffold": options.scaffold,
        "clip_norm": options.clip_norm,
        "input_shapes": dict(_input_shape(text) for text in options.input_shape or ()),
        "trainable": options.trainable or (),
        "frozen": options.frozen or (),
        "local": options.local or (),
        "lora": _lora(options.lora) if options.lora else None,
        "external_data": {p.name: read_file(p, "external data") for p in options.external_data or ()},
    }
    return arguments


def _lora(texts: Sequence[str]) -> Any:
    from laconic.training import Lora

    defaults = {"rank": 4, "alpha": 1.0, "seed": 0}
    patterns = tuple(text for text in texts if text.partition("=")[0] not in defaults)
    chosen = _settings("--lora", [text for text in texts if text not in patterns], defaults)
    if not patterns:
        raise ConfigError(
            "--lora", value=" ".join(texts), remedy="name weights by patterns, as in 'encoder.*'"
        )
    return Lora(patterns, **chosen)


def _made(option: str, table: Mapping[str, Callable[..., T]], name: str, texts: Sequence[str]) -> T:
    if name not in table:
        raise ConfigError(f"name in {option}", value=name, limit=sorted(table))
    defaults = {n: p.default for n, p in inspect.signature(table[name]).parameters.items()}
    return table[name](**_settings(f"{option} {name}", texts, defaults))


def _settings(option: str, texts: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`name=value` pairs; a value is of the kind of the setting's default."""
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"setting in {option}", value=text, limit="NAME=VALUE")
        if name not in defaults:
            raise ConfigError(f"setting in {option}", value=name, limit=sorted(defaults) or "none")
        found[name] = _value(f"{name} in {option}", value, defaults[name])
    return found


def _value(thing: str, text: str, default: Any) -> Any:
    """A truth value, a list of numbers with commas, a whole number or any number, as the default is."""
    try:
        match default:
            case bool():
                return {"true": True, "false": False}[text]
            case tuple():
                return tuple(float(part) for part in text.split(","))
            case int():
                return int(text)
            case _:
                return float(text)
    except (KeyError, ValueError) as e:
        kinds = {bool: "true or false", tuple: "numbers with commas", int: "a whole number"}
        raise ConfigError(thing, value=text, limit=kinds.get(type(default), "a number")) from e


def _input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, sign, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(",") if size)
    except ValueError:
        sign = ""
        shape = ()
    if not sign:
        raise ConfigError("--input-shape", value=text, limit="INPUT=D,D,...")
    return name, shape


def _say(options: argparse.Namespace, lines: Any) -> None:
    if not options.json:
        for line in lines:
            print(line)
