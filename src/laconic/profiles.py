"""Published power and bandwidth of boards, radios and batteries: every constant with its unit and its source.

The figures stand in `profiles.json`. This module reads them, refuses what is not as it should be, and says of
each how well it is known. docs/profiles.md is made from them.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from importlib import resources
from math import isfinite
from typing import Any, Final, TypeVar

import msgspec

from laconic.errors import ConfigError

SCHEMA: Final = 2
_LIMIT_BYTES: Final = 1 << 20


class Origin(StrEnum):
    """How well a figure is known, the best first."""

    MEASURED = "measured"
    """By this project."""
    PUBLISHED = "published"
    DERIVED = "derived"
    """Arithmetic or a fit over published data."""
    ASSUMED = "assumed"
    """No figure was found; the note says what is taken instead."""


class Verification(StrEnum):
    """How a value came into the file."""

    MEASURED = "measured"
    READ = "read"
    SECONDARY = "secondary"
    RECALL = "recall"
    RECALL_CHECKED = "recall_checked"
    DERIVED = "derived"
    CONVENTION = "convention"

    @property
    def origin(self) -> Origin:
        """What it says of the value."""
        return _ORIGINS[self]

    @property
    def said(self) -> str:
        """What it means, in words."""
        return _SAID[self]


_ORIGINS: Final = {
    Verification.MEASURED: Origin.MEASURED,
    Verification.READ: Origin.PUBLISHED,
    Verification.SECONDARY: Origin.PUBLISHED,
    Verification.RECALL: Origin.PUBLISHED,
    Verification.RECALL_CHECKED: Origin.PUBLISHED,
    Verification.DERIVED: Origin.DERIVED,
    Verification.CONVENTION: Origin.ASSUMED,
}
_SAID: Final = {
    Verification.MEASURED: "measured for this project, on loopback or a virtual Ethernet",
    Verification.READ: "read in the document or file that is named",
    Verification.SECONDARY: "read in another's text that quotes the source",
    Verification.RECALL: "from memory of the source, which was not at hand: check before relying on it",
    Verification.RECALL_CHECKED: "from memory of the source; a total published elsewhere comes out with it",
    Verification.DERIVED: "arithmetic or a fit over data that were read",
    Verification.CONVENTION: "no figure was found: a default of this project",
}


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the file's tables: unknown keys are refused."""


class Quantity(_Table, frozen=True, kw_only=True):
    """A figure: finite and not negative."""

    value: float
    unit: str
    source: str
    verification: Verification
    note: str = ""

    @property
    def origin(self) -> Origin:
        """How well it is known."""
        return self.verification.origin


class Board(_Table, frozen=True, kw_only=True):
    """A board or phone: watts when idle and with all its cores at work."""

    what: str
    kind: str
    cores: int
    idle_w: Quantity
    load_w: Quantity
    gflops: Quantity | None = None
    battery_mah: Quantity | None = None
    batch_s: dict[str, Quantity] = {}
    """Seconds for a training batch, by task, as FLASH measured them on phones of the class."""

    @property
    def core_w(self) -> float:
        """Watts above idle while one core works."""
        return (self.load_w.value - self.idle_w.value) / self.cores


class Duty(_Table, frozen=True, kw_only=True):
    """A radio that listens: a base power, and a higher one for `on_s` out of every `cycle_s` (DRX)."""

    power_mw: Quantity
    on_mw: Quantity | None = None
    on_s: Quantity | None = None
    cycle_s: Quantity | None = None

    @property
    def mean_w(self) -> float:
        """Watts over whole cycles."""
        base = self.power_mw.value
        if self.on_mw is None or self.on_s is None or self.cycle_s is None:
            return base * 1e-3
        return (base + (self.on_mw.value - base) * self.on_s.value / self.cycle_s.value) * 1e-3


class TailStage(Duty, frozen=True, kw_only=True):
    """A part of the time in which a radio stays awake after a transfer."""

    time_s: Quantity


class _Radio(_Table, frozen=True, kw_only=True, tag_field="model"):
    what: str
    promotion_s: Quantity
    promotion_mw: Quantity
    tail: tuple[TailStage, ...]
    idle: Duty
    up_mbps: Quantity
    down_mbps: Quantity
    one_packet_j: Quantity | None = None
    """What a transfer of one packet was published to cost, promotion and tail included."""


class LinearRadio(_Radio, frozen=True, kw_only=True, tag="linear"):
    """Power in transfer = alpha_up x Mbit/s up + alpha_down x Mbit/s down + beta (Huang et al. 2012)."""

    alpha_up: Quantity
    alpha_down: Quantity
    beta_mw: Quantity


class StatesRadio(_Radio, frozen=True, kw_only=True, tag="states"):
    """Power while sending and while receiving, at the radio's own rates."""

    tx_mw: Quantity
    rx_mw: Quantity


Radio = LinearRadio | StatesRadio


class Battery(_Table, frozen=True, kw_only=True):
    """What is taken for a battery of which only the mAh are known."""

    voltage_v: Quantity
    charger_efficiency: Quantity
    self_discharge: Quantity
    restart_charge: Quantity


class Wire(_Table, frozen=True, kw_only=True):
    """Bytes beside the payload."""

    ip_tcp_header_bytes: Quantity
    mss_bytes: Quantity
    tls_record_bytes: Quantity
    tls_record_most_bytes: Quantity
    tls_full_up_bytes: Quantity
    tls_full_down_bytes: Quantity
    mtls_full_up_bytes: Quantity
    mtls_full_down_bytes: Quantity
    tls_resumed_up_bytes: Quantity
    tls_resumed_down_bytes: Quantity
    puback_bytes: Quantity
    ping_bytes: Quantity
    retransmission_s: Quantity


class Population(_Table, frozen=True, kw_only=True):
    """What is known of fleets, and of the electricity that they use."""

    diurnal_swing: Quantity
    drop_out_least: Quantity
    drop_out_most: Quantity
    over_selection: Quantity
    start_charge_least: Quantity
    start_charge_most: Quantity
    least_charge_to_train: Quantity
    backward_factor: Quantity
    screen_on: Quantity
    carbon_world: Quantity
    carbon_usa: Quantity
    carbon_deu: Quantity
    carbon_fra: Quantity
    carbon_chn: Quantity
    carbon_ind: Quantity


class Profiles(_Table, frozen=True, kw_only=True):
    """The whole file."""

    schema: int
    sources: dict[str, str]
    boards: dict[str, Board]
    radios: dict[str, Radio]
    battery: Battery
    wire: Wire
    population: Population


_SUFFIXES: Final = {
    "_w": "W",
    "_mw": "mW",
    "_s": "s",
    "_j": "J",
    "_v": "V",
    "_mah": "mAh",
    "_mbps": "Mbit/s",
    "_bytes": "B",
}
_UNITS: Final = {
    "alpha_up": "mW/(Mbit/s)",
    "alpha_down": "mW/(Mbit/s)",
    "gflops": "GFLOPS",
    "self_discharge": "1/month",
}


@cache
def profiles() -> Profiles:
    """The profiles that are shipped."""
    return parse(resources.files("laconic").joinpath("profiles.json").read_bytes())


def parse(raw: bytes) -> Profiles:
    """Profiles from JSON. Raises `ConfigError` that names what is wrong, and where."""
    if len(raw) > _LIMIT_BYTES:
        raise ConfigError("size of the profiles in bytes", value=len(raw), limit=_LIMIT_BYTES)
    try:
        found = msgspec.json.decode(raw, type=Profiles)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ConfigError(f"profiles: {e}", remedy="docs/profiles.md has the keys") from e
    if found.schema != SCHEMA:
        raise ConfigError("profiles: schema", value=found.schema, limit=SCHEMA)
    for where, q in quantities(found):
        name = where.rpartition("/")[2]
        if not isfinite(q.value) or q.value < 0:
            raise ConfigError(f"profiles: {where}", value=q.value, limit="finite, not negative")
        if q.unit != unit_of(where):
            raise ConfigError(f"profiles: unit of {where}", value=q.unit, limit=unit_of(where))
        if q.source not in found.sources:
            raise ConfigError(f"profiles: source of {where}", value=q.source, remedy="add it to sources")
        if name in ("up_mbps", "down_mbps", "cycle_s", "voltage_v", "mss_bytes") and q.value == 0:
            raise ConfigError(f"profiles: {where}", value=q.value, limit="above 0")
    for name, board in found.boards.items():
        if board.cores < 1 or board.load_w.value < board.idle_w.value:
            raise ConfigError(f"profiles: {name}", value=board.cores, limit="cores, and no less W under load")
    return found


def unit_of(where: str) -> str:
    """The unit of the quantity at a place in the file."""
    parts = where.split("/")
    # A table of quantities gives its unit to what is in it.
    for name in (parts[-1], parts[-2]):
        if name in _UNITS:
            return _UNITS[name]
        for suffix, unit in _SUFFIXES.items():
            if name.endswith(suffix):
                return unit
    return "g/kWh" if parts[-1].startswith("carbon_") else "1"


def quantities(table: Any, where: str = "") -> list[tuple[str, Quantity]]:
    """Every quantity in a table of the profiles, with its place in it."""
    if isinstance(table, Quantity):
        return [(where, table)]
    if isinstance(table, msgspec.Struct):
        inner = [(f, getattr(table, f)) for f in table.__struct_fields__]
    elif isinstance(table, dict):
        inner = list(table.items())
    elif isinstance(table, tuple):
        inner = [(str(i), x) for i, x in enumerate(table)]
    else:
        return []
    return [found for name, x in inner for found in quantities(x, f"{where}/{name}" if where else str(name))]


def board(name: str) -> Board:
    """The profile of a board. Raises `ConfigError` for one that has none."""
    return _named(profiles().boards, name, "board")


def radio(name: str) -> Radio:
    """The profile of a radio. Raises `ConfigError` for one that has none."""
    return _named(profiles().radios, name, "radio")


T = TypeVar("T")


def _named(known: dict[str, T], name: str, what: str) -> T:
    if name not in known:
        raise ConfigError(f"{what} without a profile", value=name, limit=", ".join(known))
    return known[name]


def worst(*origins: Origin) -> Origin:
    """What is known of a sum: as little as of what is known worst of its parts."""
    order = list(Origin)
    return max(origins, key=order.index, default=Origin.MEASURED)
