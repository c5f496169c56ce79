"""A scenario: its file read, single keys set, all combinations of a sweep, and what tells it from others."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import version
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import msgspec

from laconic.config import explained, read_file, read_toml
from laconic.device_sim import traces
from laconic.device_sim.datasets import har
from laconic.device_sim.scenario.checking import check
from laconic.device_sim.scenario.settings import ScenarioSettings
from laconic.errors import ConfigError

REMEDY = "see docs/scenarios.md for the keys"


@dataclass(frozen=True)
class Scenario:
    """A scenario's settings, and the folder that its paths are relative to."""

    table: Mapping[str, Any]
    settings: ScenarioSettings
    folder: Path
    where: str

    @classmethod
    def read(cls, path: Path | str) -> Scenario:
        """The scenario in a file. Raises `ConfigError` that names the file, the key and what is allowed."""
        path = Path(path)
        table = read_toml(path, "scenario", remedy=REMEDY, limit_bytes=1 << 20)
        return cls.of(table, path.resolve().parent, where=str(path))

    @classmethod
    def of(cls, table: Mapping[str, Any], folder: Path = Path(), *, where: str = "scenario") -> Scenario:
        """The scenario of a table as TOML has it. Raises `ConfigError`."""
        try:
            settings = check(msgspec.convert(table, ScenarioSettings))
        except msgspec.ValidationError as e:
            raise ConfigError(f"{where}: {explained(e, ScenarioSettings)}", remedy=REMEDY) from e
        except ConfigError as e:
            raise ConfigError(
                f"{where}: {e.thing}", value=e.value, limit=e.limit, remedy=e.remedy or REMEDY
            ) from e
        return cls(table, settings, folder, where)

    def replaced(self, values: Mapping[str, Any]) -> Scenario:
        """With other values at some keys: `seed`, `coordinator.gate.threshold`, `devices.phone.count`.

        Raises `ConfigError` for a key that there is not, or a value that it cannot have.
        """
        table = copy.deepcopy(dict(self.table))
        for key, value in values.items():
            _put(table, key, value, self.where)
        return Scenario.of(table, self.folder, where=self.where)

    def swept(self, more: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, Scenario]]:
        """Every combination of the sweep's values, with a label; a single one with none if there is none."""
        sweep: dict[str, Sequence[Any]] = {**self.settings.sweep, **more}
        for key in sweep:
            if key.split(".")[0] == "sweep":
                raise ConfigError(f"{self.where}: key of the sweep", value=key, limit="a key of a run")
        alone = {k: v for k, v in self.table.items() if k != "sweep"}
        base = Scenario(alone, self.settings, self.folder, self.where)
        for chosen in itertools.product(*sweep.values()):
            values = dict(zip(sweep, chosen, strict=True))
            label = ",".join(f"{k}={_told(v)}" for k, v in values.items())
            yield label, base.replaced(values)

    def digest(self) -> str:
        """What a run's results depend on: settings, files, this program, and what computes for it."""
        h = hashlib.sha256(_program().encode())
        h.update(msgspec.json.encode(self.settings, order="deterministic"))
        for path in self.files():
            h.update(hashlib.sha256(read_file(path, "file of the scenario")).digest())
        return h.hexdigest()[:24]

    def files(self) -> list[Path]:
        """Every file that the scenario names."""
        s = self.settings
        named = [s.model.bundle, s.model.onnx, s.data.path if s.data.source == "npz" else None]
        files = [self.folder / name for name in named if name is not None]
        for d in s.devices:
            for name in (d.connection.up_trace, d.connection.down_trace):
                files += traces.files(self.folder, name) if name is not None else []
        # Those of other data sets have the digests that they must have.
        return files + (har.files(self.folder / (s.data.path or "")) if s.data.source == "har" else [])


def _put(table: dict[str, Any], key: str, value: Any, where: str) -> None:
    here: Any = table
    *path, last = key.split(".")
    for name in path:
        if isinstance(here, list):
            found = [t for t in here if isinstance(t, dict) and t.get("name") == name]
            if not found:
                known = ", ".join(str(t.get("name")) for t in here if isinstance(t, dict))
                raise ConfigError(f"{where}: {key}: {name}", limit=known, remedy=REMEDY)
            here = found[0]
        else:
            here = here.setdefault(name, {})
        if not isinstance(here, (dict, list)):
            raise ConfigError(f"{where}: {key}: {name}", value=here, limit="a table", remedy=REMEDY)
    if not isinstance(here, dict):
        raise ConfigError(f"{where}: {key}", limit="a key of a named table", remedy=REMEDY)
    here[last] = value


def _told(value: Any) -> str:
    """A value in a folder's name."""
    text = str(value)
    return "".join(c if c.isalnum() or c in "-_.+" else "_" for c in text)[:60]


_SHOWS: Final = frozenset(
    {
        "cli.py",
        "demo",
        "drawing.py",
        "pages.py",
        "quantities.py",
        "tables.py",
        "device_sim/report",
        "device_sim/scenario/comparing.py",
        "device_sim/scenario/display.py",
    }
)
"""Parts of the package that show results and have none."""


@cache
def _program() -> str:
    """This program's own text, and the versions of what computes for it."""
    h = hashlib.sha256()
    for name, text in _texts(resources.files("laconic"), ""):
        h.update(name.encode() + b"\0" + hashlib.sha256(text).digest())
    libraries = " ".join(f"{name} {version(name)}" for name in ("numpy", "onnxruntime", "zstandard"))
    return f"{h.hexdigest()} {libraries}"


def _texts(folder: Traversable, where: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        name = where + entry.name
        if name in _SHOWS or name.endswith("_command.py"):
            continue
        if entry.is_dir():
            yield from _texts(entry, name + "/")
        elif name.endswith((".py", ".json")):
            yield name, entry.read_bytes()
