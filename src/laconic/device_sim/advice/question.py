"""What is asked, as scenarios: a fleet of one, two, four and so on of the user's own devices."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laconic.config import read_file
from laconic.device_sim.advice.reading import Given
from laconic.device_sim.scenario.examples import examples_of
from laconic.device_sim.scenario.model import bundle_of
from laconic.device_sim.scenario.scenario import Scenario
from laconic.device_sim.scenario.settings import BUILT_IN
from laconic.device_sim.scenario.storing import put
from laconic.errors import ConfigError, WireError
from laconic.runtime import Bundle, Manifest

DATA: Final = "examples.npz"
SCENARIO: Final = "scenario.toml"
NEWCOMERS: Final = 5
"""From so many files on, a fifth of them is held out: devices that come when all has been learnt."""
_SEVERAL: Final = 16
"""Devices among which a single file is divided, if it is long enough."""
_ENOUGH: Final = 5
"""Examples for each of them: one of five is kept."""
_FEWEST: Final = 2
_EFFICIENCY: Final = 0.1
"""Share of a board's Linpack rating that training reaches: a guess, which `sample_ms` replaces."""


@dataclass(frozen=True)
class Question:
    """A fleet's settings; `model` is a built-in model or the path of a bundle or an ONNX model."""

    model: str
    loss: str = "cross_entropy"
    local: tuple[str, ...] = ()
    devices: tuple[int, ...] = ()
    """Sizes of fleets; none: 1, 2, 4 and so on, up to all."""
    division: str | None = None
    """Of a single file; None: uniform. A folder says itself whose examples are whose."""
    rounds: int = 20
    rounds_a_day: float = 4.0
    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 0.1
    preset: str = "small"
    board: str = "rpi_4b"
    radio: str = "wifi_2012"
    sample_ms: float | None = None
    seeds: int = 1


def manifest_of(model: str) -> Manifest | None:
    """What a model takes; None for one that is built in. Raises `ConfigError` or `ModelError`."""
    if model in BUILT_IN:
        return None
    path = Path(model)
    raw = read_file(path, "model")
    if path.suffix != ".onnx":
        try:
            return Bundle.read(raw).manifest
        except WireError as e:
            raise ConfigError(f"model {model}", value=str(e), limit=("*.onnx", "a bundle", *BUILT_IN)) from e
    from laconic.training import prepare

    return Bundle.read(prepare(raw, loss="cross_entropy")).manifest


def asked(given: Given, question: Question, folder: Path, *, seed: int = 0) -> Scenario:
    """The scenario of a question, with its file and examples written to `folder`, to be run or changed.

    Raises `ConfigError` for sizes of fleets that there are no devices for, a division of files that are
    devices' already, or a folder that cannot be written, and whatever the model raises.
    """
    group = _groups(given, seed)
    several = len(given.names) > 1
    if several and question.division is not None:
        raise ConfigError(
            "--division",
            value=question.division,
            limit="with a single file",
            remedy="leave it away: of a folder each file is a device's",
        )
    learners = np.unique(given.owner[group >= 0], return_counts=True)
    # Of what a device has it learns from some, and keeps some to be scored by.
    if several and min(learners[1]) < _FEWEST:
        few = given.names[learners[0][np.argmin(learners[1])]]
        raise ConfigError(
            f"examples in {few} to learn from", value=min(learners[1]), limit=f"{_FEWEST} or more"
        )
    limit = len(learners[0]) if several else _learnt(given) // _FEWEST
    if not limit:
        raise ConfigError("examples to learn from", value=_learnt(given), limit=f"{_FEWEST} or more")
    most = limit if several else min(_SEVERAL, max(1, _learnt(given) // _ENOUGH))
    sizes = question.devices or tuple(_doubling(most))
    if min(sizes) < 1 or max(sizes) > limit:
        what = "files to learn from" if several else f"with {_FEWEST} examples each to learn from"
        raise ConfigError("--devices", value=sizes, limit=f"1 to {limit}, {what}")
    buffer = io.BytesIO()
    if several:
        np.savez(buffer, x=given.x, y=given.y, group=group)
    else:
        np.savez(buffer, x=given.x, y=given.y)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        put(folder / DATA, buffer.getvalue())
        table = _table(question, given, sizes, several)
        # What the model takes to train is known once it is built for the examples.
        if question.sample_ms is None:
            table["devices"][0]["speed"] = {"flops": _flops(table, folder), "efficiency": _EFFICIENCY}
        put(folder / SCENARIO, _toml(table).encode())
    except OSError as e:
        raise ConfigError(f"cannot write to {folder} ({e.strerror})", remedy="choose --output") from e
    return Scenario.read(folder / SCENARIO)


def has_newcomers(files: Sequence[str]) -> bool:
    """Whether whole files are held out."""
    return len(files) >= NEWCOMERS


def _learnt(given: Given) -> int:
    """Of a single file: examples that are not held out."""
    return len(given.y) - max(1, round(0.2 * len(given.y)))


def _doubling(most: int) -> list[int]:
    sizes = [2**i for i in range(most.bit_length()) if 2**i <= most]
    return sizes if sizes[-1] == most else [*sizes, most]


def _groups(given: Given, seed: int) -> NDArray[np.int64]:
    """The file of each sample; -1 for those that nobody learns from: newcomers', or else some of all."""
    rng = np.random.default_rng([seed, 3])
    group = given.owner.copy()
    files = len(given.names)
    if has_newcomers(given.names):
        group[np.isin(group, rng.permutation(files)[: max(1, files // 5)])] = -1
    elif files > 1:
        for file in range(files):
            mine = np.flatnonzero(given.owner == file)
            if len(mine) > 2:
                group[rng.permutation(mine)[: max(1, len(mine) // 10)]] = -1
    return group


def _table(question: Question, given: Given, sizes: Sequence[int], several: bool) -> dict[str, Any]:
    q = question
    model: dict[str, Any]
    if q.model in BUILT_IN:
        model = {"built_in": q.model}
    else:
        kind = "onnx" if Path(q.model).suffix == ".onnx" else "bundle"
        model = {kind: str(Path(q.model).resolve())}
        if kind == "onnx":
            model["loss"] = q.loss
    if q.local:
        model["local"] = list(q.local)
    data: dict[str, Any] = {"source": "npz", "path": DATA, "own_held_out": 0.2}
    if several:
        data |= {"division": "group", "groups_each": 1}
    else:
        # As much for each device, however many there are.
        data |= {"division": q.division or "uniform", "samples": max(1, _learnt(given) // max(sizes))}
    table: dict[str, Any] = {
        "name": "advice",
        "sweep": {"devices.device.count": list(sizes), "seed": list(range(q.seeds))},
        # Room for a day's pause: whatever keeps a round waiting is not to end the run.
        "end": {"rounds": q.rounds, "hours": 24 * (q.rounds / q.rounds_a_day + 1)},
        "model": model,
        "data": data,
        "baselines": {"alone": True, "pooled": True, "alone_devices": 0, "every": q.rounds},
        "coordinator": {
            "rounds": {"min_devices": 1, "interval_s": 86_400 / q.rounds_a_day, "deadline_s": 3600},
            "training": {"epochs": q.epochs, "batch_size": q.batch_size, "learning_rate": q.learning_rate},
            "compression": {"up": q.preset, "down": q.preset},
        },
        "devices": [
            {
                "name": "device",
                "count": max(sizes),
                "board": q.board,
                "radio": q.radio,
                "speed": {"sample_s": (q.sample_ms or 0.0) * 1e-3},
                "connection": {"tls": "server", "keep_alive_s": 900},
            }
        ],
    }
    return table


def _flops(table: Mapping[str, Any], folder: Path) -> float:
    """Floating point operations of training for a sample, in a batch of the question's size."""
    from laconic.training.explain import step_flops

    s = Scenario.of(table, folder).settings
    examples = examples_of(s.data, s.devices[0].count or 1, 0, folder)
    bundle = bundle_of(s.model, examples, seed=0, proximal=False, folder=folder)
    batch = s.coordinator.training.batch_size
    return step_flops(bundle.parts["step"], batch) / batch


def _toml(table: Mapping[str, Any]) -> str:
    """A table of plain values, tables and tables in lists, as TOML."""
    lines = ["# Written by `laconic sim advise`: docs/scenarios.md has every key.", ""]
    _write(table, "", lines)
    return "\n".join(lines) + "\n"


def _write(table: Mapping[str, Any], where: str, lines: list[str]) -> None:
    inner = {k: v for k, v in table.items() if isinstance(v, dict)}
    lists = {k: v for k, v in table.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    for key, value in table.items():
        if key not in inner and key not in lists:
            # JSON writes strings, numbers and lists of them as TOML does.
            lines.append(f"{json.dumps(key) if '.' in key else key} = {json.dumps(value)}")
    for key, value in inner.items():
        lines += ["", f"[{where}{key}]"]
        _write(value, f"{where}{key}.", lines)
    for key, values in lists.items():
        for value in values:
            lines += ["", f"[[{where}{key}]]"]
            _write(value, f"{where}{key}.", lines)
