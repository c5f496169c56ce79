"""docs/configuration.md has every key with its type, default and checked range, and no other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec
import pytest

from laconic.compression import PRESETS, CodecSettings
from laconic.config import BrokerSection, Section, SecuritySection, load
from laconic.coordinator.configuration import CampaignSection, CoordinatorConfig, campaign_of, campaigns_of
from laconic.edge_sdk.daemon import DeviceConfig
from laconic.edge_sdk.data.sections import KINDS
from laconic.errors import ConfigError
from laconic.profiles import profiles

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "configuration.md").read_text()
EXAMPLES = REPOSITORY / "examples"
SHARED: dict[str, type] = {"broker": BrokerSection, "security": SecuritySection}

Row = tuple[str, str, str, str]
"""Key, type, default, range."""


def rows(text: str, first: str = "key") -> list[Row]:
    """The rows of every table under a heading `first | type | default | range | meaning`."""
    out: list[Row] = []
    inside = False
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")] if line.startswith("|") else []
        if len(cells) != 5:
            inside = False
        elif cells[0] == first:
            assert cells == [first, "type", "default", "range", "meaning"]
            inside = True
        elif inside and not cells[0].startswith("---"):
            assert cells[4], f"{cells[0]} has no meaning"
            out.append((cells[0].strip("`"), cells[1], cells[2], cells[3]))
    return out


def sections(chapter: str) -> dict[str, list[Row]]:
    """The tables of a chapter by section; "" is the top."""
    text = re.split(rf"^## {chapter}\n", PAGE, flags=re.MULTILINE)[1]
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    parts = re.split(r"^### (.+)\n", text, flags=re.MULTILINE)[1:]
    names = [n.strip("`[]") for n in parts[::2]]
    return {"" if n == "Top" else n: rows(t) for n, t in zip(names, parts[1::2], strict=True)}


def words(hint: Any) -> str:
    """A type as the page writes it."""
    origin = getattr(hint, "__origin__", None)
    plain = {str: "texts", int: "integers", float: "numbers"}.get(getattr(hint, "__args__", (None,))[0])
    if origin in (list, tuple) and plain:
        return f"list of {plain}"
    if origin in (list, tuple, dict):
        return "tables by name" if origin is dict else "tables"
    if origin is Literal:
        return "text"
    kinds = {str: "text", int: "integer", float: "number", bool: "true/false", list: "list", tuple: "list"}
    members = [m for m in getattr(hint, "__args__", (hint,)) if m is not type(None)]
    return " or ".join(dict.fromkeys(kinds.get(getattr(m, "__origin__", m), "table") for m in members))


def literal(value: Any) -> str:
    """A default as the page writes it."""
    if value in (None, (), msgspec.NODEFAULT):
        return "—"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        value = list(value)
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def expected(kind: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    """Key, type and default of what is no section."""
    hints = get_type_hints(kind)
    return [
        (f.name, words(hints[f.name]), "required" if f.required else literal(f.default))
        for f in msgspec.structs.fields(kind)
        if not is_section(hints[f.name]) and f.name != "campaign"
    ]


def tables(kind: type[Section]) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    yield "", kind
    yield from ((name, hint) for name, hint in get_type_hints(kind).items() if is_section(hint))


@pytest.mark.parametrize(
    ("chapter", "kind"), [("Coordinator", CoordinatorConfig), ("Device", DeviceConfig)], ids=str
)
def test_the_tables_are_the_structures(chapter: str, kind: type[Section]) -> None:
    page, shared = sections(chapter), sections("Both")
    page.pop("campaign", None)
    page.pop("data", None)
    structures = dict(tables(kind))
    assert {n for n in structures if n not in SHARED} == set(page)
    assert set(shared) == set(SHARED) <= set(structures)
    for name, structure in structures.items():
        assert structure is SHARED.get(name, structure)
        assert [r[:3] for r in {**page, **shared}[name]] == expected(structure), name


def test_a_campaigns_table_takes_the_keys_that_the_page_says() -> None:
    text = PAGE.split("### `[[campaign]]`")[1].split("\n### ")[0]
    keys = re.search(
        r"is a table `\[\[campaign\]\]` with (.+?) and all\nsections below but (.+?);", text, re.DOTALL
    )
    assert keys
    names = [f.name for f in msgspec.structs.fields(CampaignSection)]
    hints = get_type_hints(CampaignSection)
    assert re.findall(r"`(\w+)`", keys[1]) == [n for n in names if not is_section(hints[n])]
    others = {*re.findall(r"`(\w+)`", keys[2]), "campaign", ""}
    assert {n for n in sections("Coordinator") if n not in others} == {
        n for n in names if is_section(hints[n])
    }
    example = re.search(r"```toml\n(.+?)```", text, re.DOTALL)
    assert example
    config = msgspec.convert(tomllib.loads(example[1]), CoordinatorConfig)
    assert [c.cohort for _, c in campaigns_of(config, Path())] == ["houses", "gateways"]


def test_every_kind_of_data_has_its_table() -> None:
    text = PAGE.split("### `[data]`\n")[1].split("\n### ")[0]
    parts = re.split(r'^`kind = "(\w+)"`', text, flags=re.MULTILINE)[1:]
    found = {kind: [r[:3] for r in rows(table)] for kind, table in zip(parts[::2], parts[1::2], strict=True)}
    assert found == {kind: expected(structure) for kind, structure in KINDS.items()}
    hint = get_type_hints(DeviceConfig)["data"]
    assert set(hint.__args__) == {str, type(None), *KINDS.values()}


def test_the_codec_table_is_the_settings() -> None:
    hints = get_type_hints(CodecSettings)
    assert all(f.default is not MISSING for f in fields(CodecSettings))
    assert [r[:3] for r in rows(PAGE, "key of the table")] == [
        (f.name, "text" if f.name == "kind" else words(hints[f.name]), literal(f.default))
        for f in fields(CodecSettings)
    ]


def test_presets_and_profiles_are_named() -> None:
    for name in PRESETS:
        assert f'`"{name}"`' in PAGE
    for name in (*profiles().boards, *profiles().radios):
        assert f"`{name}`" in PAGE


def bounds(text: str) -> tuple[float, float] | None:
    """Lowest and highest value of a range, or None where the column gives none in numbers."""
    if m := re.fullmatch(r"(\S+) to (\S+)", text):
        return float(m[1]), float(m[2])
    if m := re.fullmatch(r"(\S+) or more", text):
        return float(m[1]), float("inf")
    return None


RANGES = [
    (section, key, kind, limits)
    for section, table in sections("Coordinator").items()
    for key, kind, _, text in table
    if (limits := bounds(text))
]


@pytest.mark.parametrize(
    ("section", "key", "kind", "limits"), RANGES, ids=[f"{s}.{k}" for s, k, *_ in RANGES]
)
def test_the_coordinators_ranges_are_checked(
    section: str, key: str, kind: str, limits: tuple[float, float]
) -> None:
    def build(value: float) -> None:
        cast = int(value) if kind == "integer" else value
        table: dict[str, Any] = {
            "bundle": "b",
            "held_out": "h.npz",
            **({section: {key: cast}} if section else {key: cast}),
        }
        campaign_of(msgspec.convert(table, CoordinatorConfig), Path())

    low, high = limits
    step = 1.0 if kind == "integer" else 1e-13
    build(low)
    with pytest.raises(ConfigError):
        build(low - step)
    if high != float("inf"):
        build(high)
        with pytest.raises(ConfigError):
            build(high + 1)


def test_ranges_were_found() -> None:
    found = {s for s, *_ in RANGES}
    assert found == {
        "",
        "rounds",
        "schedule",
        "selection",
        "training",
        "aggregation",
        "server",
        "models",
        "compression",
        "gate",
        "feedback",
        "eligibility",
        "history",
        "metrics",
    }


@pytest.mark.parametrize(
    ("name", "kind"), [("coordinator.toml", CoordinatorConfig), ("device.toml", DeviceConfig)], ids=str
)
def test_an_example_file_is_whole_and_loads(name: str, kind: type[Section]) -> None:
    text = (EXAMPLES / name).read_text()
    config = load(kind, EXAMPLES / name, {}, who="nobody")
    if isinstance(config, CoordinatorConfig):
        campaign_of(config, EXAMPLES)
    # With the optional keys switched on, every key of the structure is there.
    parts = re.split(r"^\[(\w+)\]$", text, flags=re.MULTILINE)
    found = dict(zip(["", *parts[1::2]], parts[::2], strict=True))
    structures = dict(tables(kind))
    assert set(found) == set(structures)
    for section, body in found.items():
        keys = re.findall(r"^(?:# )?(\w+) = ", body, flags=re.MULTILINE)
        assert keys == [k for k, *_ in expected(structures[section])], section


def test_an_examples_defaults_are_the_defaults() -> None:
    for name, kind in (("coordinator.toml", CoordinatorConfig), ("device.toml", DeviceConfig)):
        text = (EXAMPLES / name).read_text()
        sample = load(kind, EXAMPLES / name, {}, who="nobody")
        for section, structure in tables(kind):
            given = getattr(sample, section) if section else sample
            for f in msgspec.structs.fields(structure):
                if f.required or is_section(get_type_hints(structure)[f.name]) or f.name == "campaign":
                    continue
                line = re.search(rf"^{f.name} = .*Set for this example", text, flags=re.MULTILINE)
                if line is None:
                    default = f.default if f.default is not msgspec.NODEFAULT else f.default_factory()
                    assert getattr(given, f.name) == default, f"{name}: {section}.{f.name}"
