"""What the coordinator knows of each device: presence, battery, bytes, joules, contributions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from laconic.errors import LimitExceeded, StorageError
from laconic.node import StoreView
from laconic.protocol.messages import State, Telemetry

_PREFIX = "device/"


class DeviceRecord(msgspec.Struct, frozen=True):
    """One device's page of the ledger. Totals are over the device's life, as it reports them."""

    name: str
    cohort: str = "default"
    online: bool = False
    last_seen: float = 0.0
    samples: int = 0
    charge: float | None = None
    charging: bool = False
    metered: bool = False
    bytes_up: int = 0
    bytes_down: int = 0
    joules_compute: float = 0.0
    joules_radio: float = 0.0
    joules_measured: bool = False
    seconds_per_sample: float | None = None
    """Learnt from reports, smoothed."""
    committed: int = 0
    skipped: int = 0
    rejected: int = 0
    dropped: int = 0
    """Messages of this device that were not what the specification says."""
    last_update: str = ""
    """The update that was last committed: it may be announced again long after its round."""
    last_round: int = 0
    settled_round: int = 0
    """The newest round whose task the device has had an update committed or rejected for: a late update must
    be of a later one, so that none is ever counted twice."""
    last_rejected: str = ""
    """The update that was last rejected: its device has given it up, so it must never be committed."""


class Ledger:
    """All device records, with the changes that are not saved yet.

    A record is small and what it says of presence and battery is soon out of date, so records are saved
    along with the next thing that has to be saved, not for their own sake.
    """

    def __init__(self, store: StoreView, *, max_devices: int) -> None:
        self._max_devices = max_devices
        self._records: dict[str, DeviceRecord] = {}
        self._unsaved: set[str] = set()
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
        self._records[record.name] = record
        self._unsaved.add(record.name)

    def unsaved(self) -> dict[str, bytes | None]:
        """The entries of a `Save` for all changes since the last call."""
        entries: dict[str, bytes | None] = {
            _PREFIX + name: msgspec.msgpack.encode(self._records[name]) for name in sorted(self._unsaved)
        }
        self._unsaved.clear()
        return entries

    def seen(self, name: str, state: State, now: float) -> DeviceRecord:
        """Enter a birth or a last will."""
        record = msgspec.structs.replace(
            self[name],
            online=state.online,
            cohort=state.cohort,
            samples=state.samples if state.online else self[name].samples,
            charge=state.charge if state.online else self[name].charge,
            charging=state.charging,
            metered=state.metered,
            last_seen=now,
        )
        self.put(record)
        return record

    def told(self, name: str, t: Telemetry, now: float) -> None:
        """Enter telemetry."""
        self.put(
            msgspec.structs.replace(
                self[name],
                charge=t.charge,
                charging=t.charging,
                metered=t.metered,
                bytes_up=t.bytes_up,
                bytes_down=t.bytes_down,
                joules_compute=t.joules_compute,
                joules_radio=t.joules_radio,
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


def online(records: Iterable[DeviceRecord], cohort: str) -> list[DeviceRecord]:
    """The devices of a cohort that are here, by name."""
    return sorted((r for r in records if r.online and r.cohort == cohort), key=lambda r: r.name)
