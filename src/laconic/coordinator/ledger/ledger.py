"""All device records, with the changes that are not saved yet."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from laconic.budget.costs import Cost
from laconic.budget.spending import Totals
from laconic.coordinator.ledger import bookings
from laconic.coordinator.ledger.bookings import Answer
from laconic.coordinator.ledger.records import DeviceRecord, with_totals
from laconic.errors import LimitExceeded, StorageError
from laconic.node import StoreView
from laconic.protocol.messages import State, Telemetry

_PREFIX = "device/"


class Ledger:
    """All device records, with the changes that are not saved yet.

    A record is small and what it says of presence and battery is soon out of date, so records are saved
    along with the next thing that has to be saved, not for their own sake.
    """

    def __init__(self, store: StoreView, *, max_devices: int) -> None:
        self._max_devices = max_devices
        self._records: dict[str, DeviceRecord] = {}
        self._unsaved: set[str] = set()
        self._here: dict[str, set[str]] = {}
        """Who is online, by cohort: asked at every birth."""
        for key in store.keys(_PREFIX):
            try:
                record = msgspec.msgpack.decode(store.get(key) or b"", type=DeviceRecord)
            except msgspec.DecodeError as e:
                raise StorageError(f"record {key} ({e})", remedy="restore the store from a copy") from e
            # Presence is for this life to find out.
            self._records[record.name] = msgspec.structs.replace(record, online=False)

    def __getitem__(self, name: str) -> DeviceRecord:
        return self._records.get(name) or DeviceRecord(name)

    def __iter__(self) -> Iterator[DeviceRecord]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def count_online(self, cohort: str) -> int:
        """How many devices of a cohort are here."""
        return len(self._here.get(cohort, ()))

    def online(self, cohort: str) -> list[DeviceRecord]:
        """The devices of a cohort that are here, by name."""
        return [self._records[name] for name in sorted(self._here.get(cohort, ()))]

    def admit(self, name: str) -> None:
        """Whether there is room for a record of this device. Raises `LimitExceeded` for one too many."""
        if name not in self._records and len(self._records) >= self._max_devices:
            raise LimitExceeded(
                "devices in the ledger",
                value=len(self._records) + 1,
                limit=self._max_devices,
                remedy="raise max_devices",
            )

    def put(self, record: DeviceRecord) -> None:
        """Change a record. Raises `LimitExceeded` for one device too many."""
        self.admit(record.name)
        before = self._records.get(record.name)
        if before is not None and before.online and (not record.online or before.cohort != record.cohort):
            self._here[before.cohort].discard(record.name)
        if record.online:
            self._here.setdefault(record.cohort, set()).add(record.name)
        self._records[record.name] = record
        self._unsaved.add(record.name)

    def unsaved(self) -> dict[str, bytes | None]:
        """The entries of a `Save` for all changes since the last call."""
        entries: dict[str, bytes | None] = {
            _PREFIX + name: msgspec.msgpack.encode(self._records[name]) for name in sorted(self._unsaved)
        }
        self._unsaved.clear()
        return entries

    # --- what devices tell

    def seen(self, name: str, state: State, now: float) -> DeviceRecord:
        """Enter a birth or a last will."""
        known = self[name]
        record = msgspec.structs.replace(
            known,
            online=state.online,
            cohort=state.cohort,
            samples=state.samples if state.online else known.samples,
            charge=state.charge if state.online else known.charge,
            charging=state.charging,
            metered=state.metered if state.online else known.metered,
            zone=state.zone if state.online else known.zone,
            last_seen=now,
        )
        self.put(record)
        return record

    def told(self, name: str, t: Telemetry, now: float) -> None:
        """Enter telemetry: what is new in the totals counts to the device's day, and pays what is booked."""
        totals = Totals(
            up=t.bytes_up,
            down=t.bytes_down,
            metered_up=t.metered_up,
            metered_down=t.metered_down,
            compute=t.joules_compute,
            radio=t.joules_radio,
            since=t.since,
        )
        record, more = with_totals(self[name], totals, now)
        self.put(
            msgspec.structs.replace(
                bookings.settle(record, more),
                charge=t.charge,
                charging=t.charging,
                metered=t.metered,
                joules_measured=t.measured,
                last_seen=now,
            )
        )

    def timed(self, name: str, *, seconds: float, samples: int) -> None:
        """Learn a device's speed from one report."""
        if samples and seconds:
            known, new = self[name].seconds_per_sample, seconds / samples
            speed = new if known is None else 0.7 * known + 0.3 * new
            self.put(msgspec.structs.replace(self[name], seconds_per_sample=speed))

    # --- tasks

    def book(self, name: str, task: str, cost: Cost, now: float) -> None:
        """A device is offered a task that will cost so much."""
        self.put(bookings.book(self[name], task, cost, now))

    def answered(self, name: str, given: Answer) -> None:
        """A device has answered its task."""
        self.put(bookings.answer(self[name], given))

    def vanished(self, name: str, task: str) -> None:
        """A device that was to answer a task has not."""
        if name in self._records:
            self.put(bookings.vanish(self[name], task))


def online(ledger: Ledger, cohort: str) -> list[DeviceRecord]:
    """The devices of a cohort that are here, by name."""
    return ledger.online(cohort)
