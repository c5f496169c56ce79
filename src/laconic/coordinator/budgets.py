"""Budgets: for all devices, for groups of them, for single ones; whom they exclude, and what a task costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from typing import Final

import msgspec

from laconic.budget.allowance import FREE, Room, forbids, limits_something, of_device, room
from laconic.budget.calendar import minutes
from laconic.budget.costs import (
    SMALLEST_FRAME_BYTES,
    TELEMETRY_BYTES,
    Cost,
    download_bytes,
    frame_room,
    message_bytes,
    task_cost,
)
from laconic.compression import CodecSettings
from laconic.coordinator.ledger import DeviceRecord
from laconic.coordinator.ledger.bookings import booked
from laconic.errors import ConfigError
from laconic.protocol.messages import Allowance, Eligibility

MOST_ALLOWANCES: Final = 64
_EXTRA_BYTES: Final = 2 * message_bytes(1024)
"""Beside the messages of its task a device hears the offer, and says that it is here."""
NO_COST: Final = Cost()


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may be spent; None for what a wider table says, and there for no limit."""

    bytes_per_day: int | None = None
    bytes_per_month: int | None = None
    metered_bytes_per_day: int | None = None
    metered_bytes_per_month: int | None = None
    unmetered_bytes_per_day: int | None = None
    unmetered_bytes_per_month: int | None = None
    joules_per_day: float | None = None
    max_bytes: int | None = None
    max_joules: float | None = None
    min_charge: float | None = None
    only_charging: bool | None = None
    only_unmetered: bool | None = None
    quiet_hours: str | None = None
    """`22:00-06:30` by the device's clock; "" for none."""


class Group(Bounds, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[budget.group]]`: the devices whose names match a pattern."""

    devices: str


class Budget(Bounds, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[budget]`: for all; `[[budget.group]]` for the devices of a group; `[budget.device.<name>]` for one.

    A device is of the first group whose pattern matches its name. What its own table says counts; what it
    leaves out, its group's says; and then `[budget]`.
    """

    group: list[Group] = []
    device: dict[str, Bounds] = {}


_FIELDS: Final = Bounds.__struct_fields__


def allowances_of(budget: Budget) -> list[Allowance]:
    """The allowances of all devices: for each the first that is for it.

    Raises `ConfigError` that names the key for a value that no allowance can have, or for too many.
    """
    singles = [
        _allowance(name, [limits, _group_of(name, budget), budget], f"budget.device.{name}")
        for name, limits in budget.device.items()
    ]
    groups = [_allowance(g.devices, [g, budget], f"budget.group {g.devices!r}") for g in budget.group]
    rest = _allowance("*", [budget], "budget")
    found = [*singles, *groups, *([rest] if rest != FREE or singles or groups else [])]
    if len(found) > MOST_ALLOWANCES:
        raise ConfigError(
            "budget: groups and devices", value=len(found), limit=MOST_ALLOWANCES, remedy="use groups"
        )
    return found


def _group_of(name: str, budget: Budget) -> Bounds | None:
    patterns = [Allowance(devices=g.devices) for g in budget.group]
    found = of_device(name, patterns)
    return next((g for g, a in zip(budget.group, patterns, strict=True) if a is found), None)


def _allowance(devices: str, tables: Sequence[Bounds | None], key: str) -> Allowance:
    """The allowance that tables make, the narrowest first."""
    given: dict[str, object] = {"devices": devices}
    for field in _FIELDS:
        value = next((v for t in tables if t is not None and (v := getattr(t, field)) is not None), None)
        if field == "quiet_hours":
            start, end = minutes(str(value or ""), f"{key}.quiet_hours")
            given |= {"quiet_from": start, "quiet_until": end}
        elif value is not None:
            given[field] = value
    try:
        return msgspec.convert(list(_filled(given)), Allowance)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{key} ({e})", limit="see docs/configuration.md") from e


def _filled(given: Mapping[str, object]) -> list[object]:
    return [given.get(f, getattr(FREE, f)) for f in Allowance.__struct_fields__]


@dataclass(frozen=True, slots=True)
class Work:
    """What a round asks of a device, as far as it is the same for all."""

    task: str
    epochs: int
    codec: CodecSettings
    chunk_bytes: int
    dense_bytes: int
    """Of an update as float32: what a device's first may take."""
    version: int
    """Of the model to be trained."""
    deltas: Mapping[int, int]
    """Sizes of the deltas that lie at the broker, by the version that they lead to."""
    fulls: Mapping[int, int]
    """Sizes of the whole models that lie there, by version."""


def refusal(
    record: DeviceRecord,
    eligibility: Eligibility,
    allowance: Allowance = FREE,
    *,
    now: float = 0.0,
    cost: Cost = NO_COST,
) -> str | None:
    """Why a device is not offered a task of this cost, or None if it may be.

    battery, charging, metered, quiet, resting (it has said that it hears no offers) or budget. The device
    applies the same rules itself before it spends anything: what the ledger holds may be minutes old.
    """
    for a in (_terms(eligibility), allowance):
        if why := forbids(
            a,
            charge=record.charge,
            charging=record.charging,
            metered=record.metered,
            now=now,
            zone=record.zone,
        ):
            return why
    if record.rest_until > now:
        return "resting"
    if not limits_something(allowance):
        return None
    left = room_of(record, allowance, now)
    if left.bytes <= 0 or left.joules <= 0 or not left.holds(cost.bytes, cost.joules):
        return "budget"
    return None


@lru_cache(16)
def _terms(eligibility: Eligibility) -> Allowance:
    """A campaign's terms, which forbid as an allowance does."""
    return Allowance(
        min_charge=eligibility.min_charge,
        only_charging=eligibility.only_charging,
        only_unmetered=eligibility.only_unmetered,
    )


def room_of(record: DeviceRecord, allowance: Allowance, now: float) -> Room:
    """What a device may still spend, with what is booked taken off."""
    if not limits_something(allowance):
        return Room()
    left = room(allowance, record.spent, record.life, metered=record.metered, now=now, zone=record.zone)
    return left.less(*booked(record, now))


def predicted(record: DeviceRecord, work: Work, left: Room) -> tuple[Cost, CodecSettings]:
    """What `work` will cost a device, and the codec that it is asked for.

    Where the update that is to be expected does not fit into what is `left`, and the codec can be told how
    long it may be, it is asked for one that fits.
    """
    down = download_of(record.held_version, work) + _EXTRA_BYTES
    samples, codec = record.samples * work.epochs, work.codec
    usual = record.learnt.frame_bytes
    frame = work.dense_bytes if usual is None else int(usual)
    if codec.budget_bytes:
        frame = min(frame, codec.budget_bytes)
    if left.bytes < inf:
        free = frame_room(left.bytes - down - message_bytes(TELEMETRY_BYTES), work.chunk_bytes)
        if frame > free and codec.kind == "deadzone":
            frame = min(frame, max(free, SMALLEST_FRAME_BYTES))
            # What a device's first update takes is not known: it is cut by the device itself, if need be.
            codec = codec if usual is None else replace(codec, budget_bytes=max(1, frame))
    return (
        task_cost(record.learnt, samples=samples, frame=frame, chunk_bytes=work.chunk_bytes, down=down),
        codec,
    )


def download_of(held: int, work: Work) -> int:
    """Bytes of the way from version `held` to the one that is asked for, as a device goes it.

    By the deltas in between, or by the newest whole model and the deltas after it, whichever is shorter.
    """
    if held == work.version:
        return 0
    steps = range(held + 1, work.version + 1)
    ways: list[list[int]] = []
    if held < work.version and all(v in work.deltas for v in steps):
        ways.append([work.deltas[v] for v in steps])
    whole = max((v for v in work.fulls if v <= work.version), default=None)
    if whole is not None and all(v in work.deltas for v in range(whole + 1, work.version + 1)):
        ways.append([work.fulls[whole], *(work.deltas[v] for v in range(whole + 1, work.version + 1))])
    if not ways:
        return work.dense_bytes
    best = min(ways, key=sum)
    # On the way to a whole model a device reads as many manifests as deltas could have served it.
    manifests = len(best) if best is ways[0] else max(len(way) for way in ways)
    return download_bytes(best, work.chunk_bytes, manifests)
