"""docs/scenarios.md has every key of a scenario with its type and default; its files and code run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from test_configuration_page import REPOSITORY, bounds, expected, is_section, rows

from laconic.device_sim import Result, Scenario
from laconic.device_sim.scenario.settings import DataSection, DevicesSection, MediumSection, ScenarioSettings
from laconic.errors import ConfigError
from laconic.profiles import profiles

PAGE = (REPOSITORY / "docs" / "scenarios.md").read_text()
EXAMPLES = sorted((REPOSITORY / "examples" / "scenarios").glob("*.toml"))
DEVICES = [{"name": "pi", "count": 2, "battery": {"mah": 100}, "speed": {"sample_s": 0.1}}]
SMALL: dict[str, Any] = {"name": "n", "model": {"built_in": "softmax"}, "devices": DEVICES}
SMALL["media"] = [{"name": "m", "up_mbps": 1.0, "down_mbps": 1.0}]


def structures() -> dict[str, type[msgspec.Struct]]:
    """Every table of a scenario whose keys are on the page, by its heading."""
    found: dict[str, type[msgspec.Struct]] = {"Top": ScenarioSettings, "media": MediumSection}
    found["devices"] = DevicesSection
    for prefix, kind in (("", ScenarioSettings), ("devices.", DevicesSection), ("data.", DataSection)):
        for name, hint in get_type_hints(kind).items():
            members = [m for m in getattr(hint, "__args__", (hint,)) if is_section(m)]
            if members and hasattr(members[0], "__struct_fields__") and name not in ("media", "devices"):
                found[prefix + name] = members[0]
    # These are another page's.
    return {n: s for n, s in found.items() if n not in ("coordinator", "devices.limits")}


def tables() -> dict[str, list[tuple[str, str, str, str]]]:
    text = PAGE.split("## Keys\n")[1]
    parts = re.split(r"^### (.+)\n", text, flags=re.MULTILINE)[1:]
    found = {n.strip("`[]"): rows(t) for n, t in zip(parts[::2], parts[1::2], strict=True)}
    return {n: t for n, t in found.items() if n != "coordinator"}


def test_the_tables_are_the_structures() -> None:
    assert set(tables()) == set(structures())
    for name, kind in structures().items():
        keys = [e for e in expected(kind) if (name, e[0]) != ("devices", "battery")]
        assert [row[:3] for row in tables()[name]] == keys, name


RANGES = [
    (name, key, kind, limits)
    for name, table in tables().items()
    for key, kind, _, text in table
    if (limits := bounds(text))
]


@pytest.mark.parametrize(("name", "key", "kind", "limits"), RANGES, ids=[f"{n}.{k}" for n, k, *_ in RANGES])
def test_ranges_are_checked(name: str, key: str, kind: str, limits: tuple[float, float]) -> None:
    where = {"Top": "", "media": "media.m.", "devices": "devices.pi."}.get(name, f"{name}.")
    where = re.sub(r"^devices\.(?!pi\.)", "devices.pi.", where)
    cast = int if kind == "integer" else float
    with pytest.raises(ConfigError):
        Scenario.of(SMALL).replaced({where + key: cast(limits[0] - 1)})
    if limits[1] != float("inf"):
        with pytest.raises(ConfigError):
            Scenario.of(SMALL).replaced({where + key: cast(limits[1] * 2 + 1)})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_an_example_can_be_read(path: Path) -> None:
    scenario = Scenario.read(path)
    assert scenario.settings.name == path.stem
    assert f"`{path.name}`" in PAGE
    assert len(list(scenario.swept({}))) >= 1


def test_the_pages_code_runs() -> None:
    code = re.search(r"```python\n(.+?)```", PAGE, re.DOTALL)
    assert code
    names: dict[str, Any] = {}
    exec(code[1], names)
    assert isinstance(names["result"], Result)
    assert names["result"].totals.rounds == 2


def test_the_pages_sweep_is_one() -> None:
    code = re.search(r"```toml\n(.+?)```", PAGE, re.DOTALL)
    assert code
    scenario = Scenario.of(SMALL | tomllib.loads(code[1]))
    assert len(list(scenario.swept({}))) == 6


def test_every_task_that_was_measured_is_on_the_page() -> None:
    speed = PAGE.split("### `[devices.speed]`")[1].split("###")[0].rsplit("|\n", 1)[1]
    measured = {name: set(board.batch_s) for name, board in profiles().boards.items() if board.batch_s}
    assert set.union(*measured.values()) | set(measured) <= set(re.findall(r"`(\w+)`", speed))
    assert set(re.findall(r"`(phone_\w+)`", speed)) == set(measured)
