"""How campaigns, devices, rounds and versions stand: read from a running coordinator, or from its store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import nsmallest
from typing import Annotated, Literal, Protocol, TypeVar

import msgspec

from laconic.budget.spending import Totals
from laconic.coordinator.campaign import HistorySettings, Progress, Standing
from laconic.coordinator.compartment import Compartment, compartment_of
from laconic.coordinator.course import Course
from laconic.coordinator.history import History, RoundRecord
from laconic.coordinator.ledger import DeviceRecord, Ledger
from laconic.coordinator.records import read_records
from laconic.errors import RemoteProtocolError, StorageError
from laconic.node import StoreView

MOST_AT_ONCE = 500
"""Devices, rounds or versions in one answer: building it must not hold up a round."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be asked of a coordinator, from outside its process."""

    ask: Literal[
        "status", "devices", "rounds", "round", "versions", "pause", "resume", "rollback", "pin", "finish"
    ]
    campaign: str = ""
    """Whose; may be left out where there is only one."""
    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    """Of the round or version."""
    after: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """The last device of the answer before."""
    count: Annotated[int, msgspec.Meta(ge=1, le=MOST_AT_ONCE)] = MOST_AT_ONCE
    pinned: bool = True


class CampaignStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One campaign."""

    campaign: str
    phase: str
    paused: bool
    round: int
    rounds: int | None
    version: int | None
    model: str
    loss: float | None
    accuracy: float | None
    opened_at: float | None
    """When the open round was opened, seconds since 1970; None if none is."""
    held_until: float | None
    """When the schedule lets the next round open, if it does not now."""
    asked: int
    committed: int
    late: int
    silent: int
    devices: int
    online: int | None
    """None where nobody knows: no coordinator runs."""


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One device, as the ledger has it. Bytes are both ways."""

    name: str
    campaign: str
    online: bool | None
    last_seen: float
    charge: float | None
    charging: bool
    metered: bool
    bytes_today: int
    bytes_month: int
    joules_today: float
    joules_measured: bool
    committed: int
    skipped: int
    rejected: int
    dropped: int
    reliability: float
    samples: int


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model version."""

    version: int
    model: str
    parent: str
    created_at: float
    round: int
    updates: int
    silent: int
    samples: int
    loss: float | None
    accuracy: float | None
    status: str
    pinned: bool
    kept: bool
    """Whether its weights are still there, to roll back to."""
    why: str


class Reader(Protocol):
    """Where answers are read from."""

    def campaigns(self) -> list[str]:
        """The cohorts of the campaigns."""
        ...

    def campaign(self, name: str) -> CampaignStatus:
        """How one stands."""
        ...

    def devices(self) -> Iterator[DeviceRecord]:
        """Every device's record."""
        ...

    def part(self, campaign: str) -> tuple[StoreView, History]:
        """A campaign's part of the store, and its rounds."""
        ...

    running: bool


class Live:
    """Reads a running coordinator, between its events."""

    running = True

    def __init__(self, courses: Mapping[str, Course]) -> None:
        self._courses = courses

    def campaigns(self) -> list[str]:
        return list(self._courses)

    def campaign(self, name: str) -> CampaignStatus:
        c = self._courses[name]
        newest = None if c.registry.empty else c.registry.current
        devices = [r.online for r in c.ledger if r.cohort == name]
        return CampaignStatus(
            campaign=name,
            phase=c.round.phase.value,
            paused=c.standing.paused or c.draining,
            round=c.round.number,
            rounds=c.campaign.plan.rounds,
            opened_at=c.progress.opened_at if c.progress.open else None,
            held_until=c.held_until,
            asked=len(c.book.expected) if c.progress.open else 0,
            committed=len(c.book.committed),
            late=len(c.book.late),
            silent=c.book.silent,
            devices=len(devices),
            online=sum(devices),
            version=None if newest is None else newest.version,
            model="" if newest is None else newest.name,
            loss=None if newest is None else newest.loss,
            accuracy=None if newest is None else newest.accuracy,
        )

    def devices(self) -> Iterator[DeviceRecord]:
        return iter(next(iter(self._courses.values())).ledger)

    def part(self, campaign: str) -> tuple[StoreView, History]:
        course = self._courses[campaign]
        return course.history.store, course.history


class Stored:
    """Reads the store that no coordinator holds."""

    running = False

    def __init__(self, store: StoreView, rounds: Mapping[str, int]) -> None:
        """`rounds`: by campaign, how many it is to have."""
        self._store, self._rounds = store, rounds
        self._devices = list(Ledger(store, max_devices=10**9))

    def campaigns(self) -> list[str]:
        return list(self._rounds)

    def campaign(self, name: str) -> CampaignStatus:
        own = compartment_of(self._store, name)
        progress = _read(own, "progress", Progress) or Progress()
        standing = _read(own, "standing", Standing) or Standing()
        newest = max(read_records(own), key=lambda r: r.version, default=None)
        phase = "finished" if progress.finished else "collecting" if progress.open else "waiting"
        return CampaignStatus(
            campaign=name,
            phase=phase,
            paused=standing.paused,
            round=progress.number,
            rounds=self._rounds[name],
            opened_at=progress.opened_at if progress.open else None,
            held_until=None,
            asked=len(progress.expected) if progress.open else 0,
            committed=sum(1 for _ in own.keys("update/")),
            late=sum(1 for _ in own.keys("late/")),
            silent=0,
            devices=sum(r.cohort == name for r in self._devices),
            online=None,
            version=None if newest is None else newest.version,
            model="" if newest is None else newest.name,
            loss=None if newest is None else newest.loss,
            accuracy=None if newest is None else newest.accuracy,
        )

    def devices(self) -> Iterator[DeviceRecord]:
        return iter(self._devices)

    def part(self, campaign: str) -> tuple[StoreView, History]:
        own = compartment_of(self._store, campaign)
        return own, History(own, HistorySettings())


def answer(request: Request, reader: Reader, now: float) -> dict[str, object]:
    """The answer to a question. Raises `RemoteProtocolError` for what there is not."""
    match request.ask:
        case "status":
            names = reader.campaigns()
            return {"running": reader.running, "campaigns": [reader.campaign(name) for name in names]}
        case "devices":
            later = (r for r in reader.devices() if r.name > request.after)
            found = nsmallest(request.count, later, key=lambda r: r.name)
            said = [device_status(r, now, running=reader.running) for r in found]
            return {"devices": said, "more": len(found) == request.count}
        case "rounds":
            _, history = reader.part(chosen(request.campaign, reader.campaigns()))
            return {"rounds": list(history.newest(request.count))}
        case "round":
            return {"round": _round(chosen(request.campaign, reader.campaigns()), request.number, reader)}
        case "versions":
            own, _ = reader.part(chosen(request.campaign, reader.campaigns()))
            return {"versions": _versions(own, request)}
        case _:
            raise RemoteProtocolError(request.ask, value="no coordinator", limit="one that runs")


def chosen(campaign: str, campaigns: list[str]) -> str:
    """The campaign that is meant. Raises `RemoteProtocolError` for none, or if it is not clear which."""
    if not campaign and len(campaigns) == 1:
        return campaigns[0]
    if campaign not in campaigns:
        raise RemoteProtocolError(
            "campaign", value=campaign or "none", limit=", ".join(campaigns), remedy="name one by --campaign"
        )
    return campaign


def device_status(r: DeviceRecord, now: float, *, running: bool) -> DeviceStatus:
    """What of a device's record a person wants to see."""
    spent = r.spent.add(Totals(), now, r.zone)
    return DeviceStatus(
        name=r.name,
        campaign=r.cohort,
        online=r.online if running else None,
        last_seen=r.last_seen,
        charge=r.charge,
        charging=r.charging,
        metered=r.metered,
        bytes_today=spent.day.bytes,
        bytes_month=spent.month.bytes,
        joules_today=spent.day.joules,
        joules_measured=r.joules_measured,
        committed=r.committed,
        skipped=r.skipped,
        rejected=r.rejected,
        dropped=r.dropped,
        reliability=r.reliability,
        samples=r.samples,
    )


def _round(campaign: str, number: int | None, reader: Reader) -> RoundRecord:
    _, history = reader.part(campaign)
    numbers = history.numbers()
    wanted = number if number is not None else (numbers[-1] if numbers else 0)
    record = history.read(wanted)
    if record is None:
        known = f"{numbers[0]} to {numbers[-1]}" if numbers else "none yet"
        raise RemoteProtocolError("round that is over", value=wanted, limit=known)
    return record


def _versions(own: StoreView, request: Request) -> list[VersionStatus]:
    kept = {int(key.rpartition("/")[2]) for key in own.keys("weights/")}
    records = sorted(read_records(own), key=lambda r: r.version)[-request.count :]
    return [
        VersionStatus(
            version=r.version,
            model=r.name,
            parent=r.parent,
            created_at=r.created_at,
            round=r.round,
            updates=r.updates,
            silent=r.silent,
            samples=r.samples,
            loss=r.loss,
            accuracy=r.accuracy,
            status=str(r.status),
            pinned=r.pinned,
            kept=r.version in kept,
            why=r.why,
        )
        for r in records
    ]


T = TypeVar("T")


def _read(own: Compartment, key: str, kind: type[T]) -> T | None:
    blob = own.get(key)
    try:
        return None if blob is None else msgspec.msgpack.decode(blob, type=kind)
    except msgspec.DecodeError as e:
        raise StorageError(f"record {key} ({e})", remedy="restore the store from a copy") from e
