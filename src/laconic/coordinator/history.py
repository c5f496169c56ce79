"""What is written down of each round: who was asked, what became of them, what it cost and gave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from laconic.coordinator.campaign import Committed, HistorySettings, Progress
from laconic.coordinator.open_round import OpenRound
from laconic.errors import StorageError
from laconic.node import StoreView
from laconic.protocol.messages import Fin

PREFIX: Final = "round/"
_WHY_LIMIT: Final = 200


class Contribution(msgspec.Struct, frozen=True, array_like=True):
    """A committed update in a round's record. What a crash in mid-round has lost of it is None."""

    device: str
    frame_bytes: int
    weight: int
    staleness: int = 0
    seconds: float | None = None
    norm: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None


class RoundRecord(msgspec.Struct, frozen=True):
    """One round that is over."""

    number: int
    task: str
    base: int
    """The version that was trained from."""
    opened_at: float
    closed_at: float
    version: int | None = None
    """The version that came of it; None if it changed nothing."""
    asked: int = 0
    committed: int = 0
    late: int = 0
    silent: int = 0
    rejected: int = 0
    absent: int = 0
    extended: int = 0
    """How many times its deadline passed with too few reports."""
    frame_bytes: int = 0
    """Of the updates that are in it."""
    samples: int = 0
    loss: float | None = None
    """Of the version, on held-out data."""
    accuracy: float | None = None
    loss_before: float | None = None
    """Mean training loss of the first epoch over the devices that said it, by samples."""
    loss_after: float | None = None
    """Of the last epoch."""
    who_asked: list[str] = []
    who_committed: list[Contribution] = []
    who_late: list[Contribution] = []
    who_silent: dict[str, str] = {}
    """Why, by device."""
    who_rejected: dict[str, str] = {}
    """Why, by device."""
    who_absent: list[str] = []


class Tally:
    """What happens in the round at hand, for its record. Late updates may come before it opens."""

    def __init__(self) -> None:
        self._contributions: dict[str, Contribution] = {}
        self._silences: dict[str, str] = {}
        self._refusals: dict[str, str] = {}
        self._extended = 0

    def committed(self, device: str, update: str, fin: Fin, *, frame_bytes: int, staleness: int) -> None:
        """An update counts."""
        self._contributions[update] = Contribution(
            device,
            frame_bytes,
            fin.weight,
            staleness,
            fin.seconds,
            fin.norm,
            fin.loss_before,
            fin.loss_after,
        )

    def restored(self, c: Committed) -> None:
        """An update counts that was committed in an earlier life of the process."""
        self._contributions[c.update] = Contribution(c.device, len(c.frame), c.weight, c.staleness)

    def skipped(self, device: str, why: str) -> None:
        """A device stays silent."""
        self._silences[device] = why[:_WHY_LIMIT]

    def rejected(self, device: str, why: str) -> None:
        """A device's update was refused."""
        self._refusals[device] = why[:_WHY_LIMIT]

    def extended(self) -> None:
        """The deadline has passed with too few reports."""
        self._extended += 1

    def record(
        self, progress: Progress, book: OpenRound, now: float, *, base: int, names: int
    ) -> RoundRecord:
        """The record of the round that ends now, each list of it cut to `names`."""
        asked = book.expected | set(progress.expected)
        late = sorted((c for u, c in self._contributions.items() if u in book.late), key=_device)
        on_time = sorted(
            (c for u, c in self._contributions.items() if book.committed.get(c.device) == u), key=_device
        )
        silences = {d: why for d, why in self._silences.items() if d not in book.committed}
        refusals = {d: why for d, why in self._refusals.items() if not book.heard(d)}
        absent = sorted(d for d in asked if not book.heard(d) and d not in refusals)
        both = [*on_time, *late]
        return RoundRecord(
            number=progress.number,
            task=progress.task,
            base=base,
            opened_at=progress.opened_at,
            closed_at=now,
            asked=len(asked),
            committed=len(on_time),
            late=len(late),
            silent=book.silent,
            rejected=len(refusals),
            absent=len(absent),
            extended=self._extended,
            frame_bytes=sum(c.frame_bytes for c in both),
            samples=book.samples,
            loss_before=_mean((c.loss_before, c.weight) for c in both),
            loss_after=_mean((c.loss_after, c.weight) for c in both),
            who_asked=sorted(asked)[:names],
            who_committed=on_time[:names],
            who_late=late[:names],
            who_silent=_first(silences, names),
            who_rejected=_first(refusals, names),
            who_absent=absent[:names],
        )


class History:
    """The records in a campaign's part of the store, the newest of them so many."""

    def __init__(self, store: StoreView, settings: HistorySettings) -> None:
        self.store, self.settings = store, settings
        # Only names are read: a thousand records must not make a start slow.
        self._numbers = [int(key.removeprefix(PREFIX)) for key in store.keys(PREFIX)]

    def add(self, record: RoundRecord) -> dict[str, bytes | None]:
        """The entries of the `Save` that adds a record and drops what is too many."""
        most = self.settings.rounds
        kept = sorted({*self._numbers, record.number})[-most:] if most else []
        entries: dict[str, bytes | None] = {_key(n): None for n in set(self._numbers).difference(kept)}
        if record.number in kept:
            entries[_key(record.number)] = msgspec.msgpack.encode(record)
        self._numbers = kept
        return entries

    def numbers(self) -> list[int]:
        """The rounds that there are records of, in order."""
        return list(self._numbers)

    def read(self, number: int) -> RoundRecord | None:
        """The record of a round, or None. Raises `StorageError` for one that cannot be read."""
        blob = self.store.get(_key(number))
        try:
            return None if blob is None else msgspec.msgpack.decode(blob, type=RoundRecord)
        except msgspec.DecodeError as e:
            raise StorageError(f"record {_key(number)} ({e})", remedy="restore the store from a copy") from e

    def newest(self, count: int) -> Iterator[RoundRecord]:
        """The last `count` records, the oldest of them first."""
        for number in self._numbers[-count:]:
            if (record := self.read(number)) is not None:
                yield record


def _key(number: int) -> str:
    return f"{PREFIX}{number:08d}"


def _device(c: Contribution) -> str:
    return c.device


def _first(reasons: dict[str, str], names: int) -> dict[str, str]:
    return {device: reasons[device] for device in sorted(reasons)[:names]}


def _mean(values: Iterable[tuple[float | None, int]]) -> float | None:
    said = [(value, weight) for value, weight in values if value is not None and weight > 0]
    total = sum(weight for _, weight in said)
    return sum(value * weight for value, weight in said) / total if total else None
