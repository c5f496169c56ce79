"""All runs of a scenario: those whose files are there and still right are not run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from laconic.config import read_file
from laconic.device_sim.cluster import Engine
from laconic.device_sim.scenario import keeping, storing
from laconic.device_sim.scenario.campaigning import campaign_in
from laconic.device_sim.scenario.fleet import check_classes
from laconic.device_sim.scenario.results import Result
from laconic.device_sim.scenario.running import Watch, play
from laconic.device_sim.scenario.scenario import Scenario
from laconic.errors import ConfigError, DataError

_INDEX = "sweep.json"
_MOST_RUNS = 10_000


@dataclass(frozen=True)
class Run:
    """One run: its label in the sweep (none for a single one), where its files are, and what they say."""

    label: str
    folder: Path
    result: Result
    cached: bool = False
    """Whether its files were there already."""
    replaced: bool = False
    """Whether there were those of other settings, files or program in their place."""


def run_all(
    scenario: Scenario,
    output: Path,
    *,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    threads: int = 1,
    engine: Engine = "local",
    begin: Callable[[str, int, int], Watch | None] = lambda label, number, of: None,
) -> list[Run]:
    """Run every combination of a sweep, each into a folder of its own in `output`; or the scenario itself
    into `output`.

    A run whose files are there is not run again: they are those of these settings, files, and this program.
    So a sweep that was interrupted goes on with what lacks. `begin` is told of each run that begins: its
    label, its number and of how many. What can be known of all runs is checked before the first.

    Raises `ConfigError`, `ModelError`, `DataError` or `ClusterError`.
    """
    number = prod(map(len, {**scenario.settings.sweep, **(sweep or {})}.values()))
    if number > _MOST_RUNS:
        raise ConfigError("runs of the sweep", value=number, limit=_MOST_RUNS)
    combinations = list(scenario.swept(sweep or {}))
    labels = [label for label, _ in combinations]
    if len(set(labels)) < len(labels):
        raise ConfigError("values of the sweep", value=labels, limit="each once")
    _check([one for _, one in combinations])
    runs = []
    for number, (label, one) in enumerate(combinations, 1):
        folder = output / label if label else output
        digest = one.digest()
        result = there = _there(folder, digest, with_models=one.settings.record.models)
        replaced = False
        if result is None:
            # What cannot be written is said before hours of computing, not after them.
            storing.make(folder)
            # Of the same digest they are damaged, or lack something.
            replaced = storing.digest_in(folder) not in (None, digest) or (folder / _INDEX).exists()
            watch = begin(label, number, len(combinations))
            result, models = play(one, threads=threads, engine=engine, watch=watch)
            if one.settings.record.models:
                keeping.write(keeping.Kept.of(models), folder)
            storing.write(result, folder)
        runs.append(Run(label, folder, result, cached=there is not None, replaced=replaced))
        _index(output, runs, len(combinations))
    return runs


def _check(scenarios: Sequence[Scenario]) -> None:
    """A word that is wrong in the last of a sweep's values is found before the first has run for hours."""
    classes: set[bytes] = set()
    for one in scenarios:
        campaign_in(one)
        # Most sweeps have one fleet, whose traces are read once for it.
        fleet = msgspec.json.encode((one.settings.devices, one.settings.media))
        if fleet not in classes:
            classes.add(fleet)
            check_classes(one.settings, one.folder)


def _there(folder: Path, digest: str, *, with_models: bool) -> Result | None:
    """The run of that digest in a folder; None where there is none, or its files are damaged."""
    if storing.digest_in(folder) != digest or (with_models and not keeping.there(folder)):
        return None
    try:
        return storing.read(folder)
    except (ConfigError, DataError):
        return None


def _index(output: Path, runs: Sequence[Run], of: int) -> None:
    """Say which folders are a sweep's, and how many there will be; that of a single run is none."""
    table = [{"label": r.label, "digest": r.result.digest} for r in runs]
    try:
        if runs[0].label:
            text = msgspec.json.format(msgspec.json.encode({"of": of, "runs": table}), indent=2)
            storing.put(output / _INDEX, text + b"\n")
        else:
            (output / _INDEX).unlink(missing_ok=True)
    except OSError as e:
        raise ConfigError(f"cannot write to {output} ({e.strerror})", remedy="choose --output") from e


class _Entry(msgspec.Struct, frozen=True):
    label: str
    digest: str


class _Index(msgspec.Struct, frozen=True):
    runs: list[_Entry]
    of: int = 0


def lacking_in(folder: Path) -> int:
    """How many runs of an interrupted sweep are not in its folder. Raises as `runs_in` does."""
    index = _index_in(folder)
    return 0 if index is None else max(0, index.of - len(index.runs))


def _index_in(folder: Path) -> _Index | None:
    # Whatever a name is, this asks no more than whether it is there.
    if not os.path.exists(folder / _INDEX):
        return None
    try:
        return msgspec.json.decode(read_file(folder / _INDEX, "sweep"), type=_Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DataError(f"sweep in {folder} cannot be read ({e})", remedy="run it again") from e


def runs_in(folder: Path) -> list[Run]:
    """The run, or the runs of a sweep, whose files are in a folder.

    Raises `ConfigError` if there are none, `DataError` for what cannot be read.
    """
    index = _index_in(folder)
    if index is None:
        if os.path.isdir(folder) and not (folder / storing.RUN).exists():
            remedy = "a run's files are there when it has ended: let `laconic sim run` end, or check the path"
            raise ConfigError(f"no {storing.RUN} in {folder}", remedy=remedy)
        return [Run("", folder, storing.read(folder), cached=True)]
    if not index.runs:
        raise DataError(f"runs of the sweep in {folder}", value=0, limit="1 or more", remedy="run it again")
    for entry in index.runs:
        if entry.label in ("", "..") or Path(entry.label).name != entry.label:
            raise DataError(f"label of a run in {folder}", value=entry.label, limit="a folder's name")
    return [Run(e.label, folder / e.label, storing.read(folder / e.label), cached=True) for e in index.runs]
